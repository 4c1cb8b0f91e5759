"""Which attention for which cuts, at which length: the measured crossovers behind
`grouped_attention.MANY_POSITIONS` and `dense_attention.MANY_KEYS`.

    python -m tests.benchmarks.attention_kernels --out kernels.json  # one GPU, about a minute

32 heads of 128 in bfloat16, as in the 7B shape; times are medians of CUDA events, milliseconds a
call. Groups are timed as a whole and in their parts (stretches, the batch of frames, rows that are
left), beside other ways to compute the same parts; every `difference` is the largest one from sdpa
under the whole mask, relative to its largest value.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention

from mapflow.model_adapters.checkpoints.pathways import named_pathways
from mapflow.model_adapters.interventions import (
    BatchMasks,
    Segment,
    TokenLayout,
    parse_intervention,
)
from mapflow.model_adapters.interventions.kernels import grouped_attention as grouped
from mapflow.model_adapters.interventions.kernels import query_groups
from mapflow.model_adapters.interventions.kernels.dense_attention import block_sparse_attention
from mapflow.model_adapters.interventions.kernels.edges import DenseEdges
from mapflow.model_adapters.interventions.kernels.grouped_attention import (
    GroupedEdges,
    _as_batch,
    _keys_of_parts,
    grouped_attention,
)
from tests.benchmarks.procedures import SIZES, hardware

FRAMES = (2, 4, 8, 16, 32, 64)
LAYERS = {
    "cross-frame open": ("effective-strict", 9),
    "frames apart": ("effective-strict", 17),
    "frames read the system text alone": ("effective", 25),
    "frames apart, of unequal sizes": ("effective-strict", 17),
}
"""Policies and 0-based layers on the 7B checkpoint: which edges they keep."""
UNEQUAL = (140, 146, 143, 147)
"""Tokens of frames that group with none, so that nearly all rows are left to one mask."""


def events(work: Callable[[], object], repeats: int = 10) -> float:
    """Median milliseconds on the GPU."""
    found = []
    for turn in range(repeats + 3):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        work()
        end.record()
        torch.cuda.synchronize()
        if turn >= 3:
            found.append(begin.elapsed_time(end))
    return statistics.median(found)


def unequal(layout: TokenLayout) -> TokenLayout:
    """The same prompt, its frames' sizes in turn those of `UNEQUAL`."""
    runs = []
    for segment, size in zip(layout.segments, layout.sizes.tolist(), strict=True):
        runs.append(
            (segment, UNEQUAL[segment.index % len(UNEQUAL)] if segment.kind == "frame" else size)
        )
    assert runs[-1][0] == Segment("last")
    return TokenLayout.from_runs(runs, layout.true_option)


@torch.inference_mode()
def measure(frames: int, policy: str, layer: int, same_size: bool = True) -> dict[str, float | str]:
    size = SIZES["7b"]
    layout = type(size)(**{**vars(size), "frames": frames}).layout()
    layout = layout if same_size else unequal(layout)
    n = len(layout)
    query, key, value = (
        torch.randn(1, 32, n, 128, device="cuda", dtype=torch.bfloat16) for _ in range(3)
    )
    pathways = named_pathways("LLaVA-NeXT-7B-Video-FT")
    compiled = parse_intervention(policy).compile(layout, 32, pathways)
    with (
        mock.patch.object(grouped, "MANY_POSITIONS", 1),
        mock.patch.object(query_groups, "LEAST_SHARE", 0),
    ):
        groups = BatchMasks.of([compiled], device="cuda").mask(layer, n, n)
    assert isinstance(groups, GroupedEdges)
    edges = DenseEdges(groups.allowed)
    module = torch.nn.Module()
    row: dict[str, float | str] = {
        "positions": n,
        "edges_kept": float(edges.allowed.float().mean() * 2),
    }

    def sdpa(backend: SDPBackend, **mask: object) -> Callable[[], object]:
        def run() -> object:
            with sdpa_kernel(backend):
                return scaled_dot_product_attention(query, key, value, **mask)  # pyright: ignore[reportArgumentType]

        return run

    bias = edges.bias(torch.bfloat16)
    ways = {
        "flash, causal, nothing cut": sdpa(SDPBackend.FLASH_ATTENTION, is_causal=True),
        "efficient, bias": sdpa(SDPBackend.EFFICIENT_ATTENTION, attn_mask=bias),
        "cudnn, bias": sdpa(SDPBackend.CUDNN_ATTENTION, attn_mask=bias),
        "block-sparse": lambda: block_sparse_attention(query, key, value, edges),
        "grouped": lambda: grouped_attention(module, query, key, value, groups),
    }

    def part(
        some: list[query_groups.QueryGroup], left: list[tuple[int, int]]
    ) -> Callable[[], object]:
        edges = GroupedEdges(some, left, groups.mask_of, groups.device, groups.may_be_empty)
        return lambda: grouped_attention(module, query, key, value, edges)

    stretches = [group for group in groups.groups if group.count == 1]
    batches = [group for group in groups.groups if group.count > 1]
    row["rows left"] = sum(stop - start for start, stop in groups.rest)
    if stretches:
        ways["grouped: stretches"] = part(stretches, [])
    if batches:
        ways["grouped: batches"] = part(batches, [])
        ways["batches, causal in place of a bias"] = lambda: [
            causal_batch(query, key, value, group) for group in batches
        ]
    if groups.rest:
        ways["grouped: rows left"] = part([], list(groups.rest))
        rest = torch.cat([torch.arange(*span, device="cuda") for span in groups.rest])
        if len(rest) <= FEW:
            ways["rows left, plain matrices"] = lambda: plain(
                query[:, :, rest], key, value, bias[:, :, rest]
            )
    for name, way in ways.items():
        try:
            row[name] = events(way)
        except RuntimeError as error:
            row[name] = str(error).splitlines()[0][:120]

    exact = scaled_dot_product_attention(query, key, value, attn_mask=bias).transpose(1, 2)

    def difference(found: Tensor, rows: slice | Tensor) -> float:
        return float((found - exact[:, rows]).abs().max() / exact.abs().max())

    row["difference, grouped"] = difference(
        grouped_attention(module, query, key, value, groups), slice(None)
    )
    for group in batches:
        found = causal_batch(query, key, value, group)
        row["difference, causal batch"] = difference(found, slice(group.start, group.stop))
    if groups.rest and len(rest) <= FEW:
        found = plain(query[:, :, rest], key, value, bias[:, :, rest])
        row["difference, plain matrices"] = difference(found.transpose(1, 2), rest)
    return row


FEW = 512
"""Rows whose scores against all keys are written out."""


def causal_batch(
    query: Tensor, key: Tensor, value: Tensor, group: query_groups.QueryGroup
) -> Tensor:
    """A group's batch as flash takes it: what is causal at the lower right needs no bias."""
    rows = _as_batch(query[:, :, group.start : group.stop], group.count)
    keys, values = _keys_of_parts(key, group), _keys_of_parts(value, group)
    mask: Any = causal_lower_right(group.size, keys.shape[2])
    found = scaled_dot_product_attention(rows, keys, values, attn_mask=mask)
    return found.transpose(1, 2).reshape(1, -1, *found.shape[1::2])


def plain(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """Scores written out: fused kernels give few rows to few processors, each of which goes
    through all keys.
    """
    scores = torch.matmul(query, key.mT).mul_(query.shape[-1] ** -0.5).add_(bias)
    return torch.matmul(scores.softmax(-1), value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found: dict[str, object] = {"hardware": hardware()}
    for name, layer in LAYERS.items():
        same_size = not name.endswith("unequal sizes")
        found[name] = [measure(frames, *layer, same_size) for frames in FRAMES]
        print(name, *found[name], sep="\n  ", flush=True)  # pyright: ignore[reportGeneralTypeIssues]
    if options.out:
        options.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

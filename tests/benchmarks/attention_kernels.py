"""Which attention for which cuts, at which length: the measured crossovers behind `grouped_attention.MANY_ROWS` and
`block_sparse.MANY_KEYS`.

    python -m tests.benchmarks.attention_kernels --out kernels.json      # one GPU, about a minute (compiling included)

32 heads of 128 in bfloat16, as in the 7B shape; times are medians of CUDA events, milliseconds a call.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from mapflow.model_adapters.checkpoint_pathways import named_pathways
from mapflow.model_adapters.interventions import AttentionPlan, parse_intervention, plan
from mapflow.model_adapters.interventions.block_sparse import block_sparse_attention
from mapflow.model_adapters.interventions.edges import Edges
from mapflow.model_adapters.interventions.grouped_attention import GroupedEdges, grouped_attention
from tests.benchmarks.procedures import SIZES, hardware

FRAMES = (2, 4, 8, 16, 32, 64)
LAYERS = {
    "cross-frame open": ("effective-strict", 9),
    "frames apart": ("effective-strict", 17),
    "frames read the system text alone": ("effective", 25),
}
"""Policies and 0-based layers on the 7B checkpoint: which edges they keep."""


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


@torch.inference_mode()
def measure(frames: int, policy: str, layer: int) -> dict[str, float | str]:
    size = SIZES["7b"]
    layout = type(size)(**{**vars(size), "frames": frames}).layout()
    n = len(layout)
    query, key, value = (torch.randn(1, 32, n, 128, device="cuda", dtype=torch.bfloat16) for _ in range(3))
    pathways = named_pathways("LLaVA-NeXT-7B-Video-FT")
    compiled = parse_intervention(policy).compile(layout, 32, pathways)
    with mock.patch.object(plan, "MANY_ROWS", 1):
        groups = AttentionPlan.of([compiled], device="cuda").mask(layer, n, n)
    assert isinstance(groups, GroupedEdges)
    edges = Edges(groups.allowed)
    module = torch.nn.Module()
    row: dict[str, float | str] = {"positions": n, "edges_kept": float(edges.allowed.float().mean() * 2)}

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
    for name, way in ways.items():
        try:
            row[name] = events(way)
        except RuntimeError as error:
            row[name] = str(error).splitlines()[0][:120]
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found: dict[str, object] = {"hardware": hardware()}
    for name, layer in LAYERS.items():
        found[name] = [measure(frames, *layer) for frames in FRAMES]
        print(name, *found[name], sep="\n  ", flush=True)  # pyright: ignore[reportGeneralTypeIssues]
    if options.out:
        options.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

"""The cost of a pruned policy against full attention: one answer at the 7B shape, 8 and 64 frames.

    python -m tests.benchmarks.policy_prefill --size 7b 7b-64 --out policies.json  # one GPU
    python -m tests.benchmarks.policy_prefill                                      # small, CPU

`plain` is transformers' own forward with sdpa's causal (flash) kernel and only the last position
projected. The policies run as in an ordinary run, compiling the intervention included. It takes
about a minute on a GPU. The floor is what arithmetic allows: positions that pass through the
layers' matrices and edges that are scored, as a share of the baseline run's. Small float32 weights
are compared with the reference implementation first.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mapflow.model_adapters.checkpoints.pathways import scaled_pathways
from mapflow.model_adapters.interventions import (
    BatchMasks,
    Compiled,
    Decoder,
    apply,
    parse_intervention,
)
from mapflow.model_adapters.interventions.execution.answers import answer_logits
from mapflow.model_adapters.interventions.execution.decoder_inputs import DecoderInputs
from mapflow.model_adapters.interventions.execution.memory_plan import plan_passes
from mapflow.model_adapters.interventions.kernels.attention import EAGER, SDPA
from tests.benchmarks.procedures import (
    SIZES,
    Size,
    clock,
    embeddings,
    hardware,
    language_model,
    peak_gib,
    profile,
)

POLICIES = ("full", "effective", "effective-strict", "random:ratio=0.58,seed=0")
PATHWAYS_OF = "LLaVA-NeXT-7B-Video-FT"


class Bench:
    def __init__(self, size: Size, device: str, dtype: torch.dtype) -> None:
        self.size, self.layout = size, size.layout()
        self.model = language_model(size, device, dtype)
        self.decoder = Decoder(self.model)
        self.pathways = scaled_pathways(PATHWAYS_OF, size.layers)
        self.use(size)

    def use(self, size: Size) -> None:
        """Another prompt for the same weights."""
        self.size, self.layout = size, size.layout()
        dtype = self.model.lm_head.weight.dtype
        self.inputs = DecoderInputs(
            embeddings(size, len(self.layout), str(self.decoder.device), dtype)
        )

    def compile(self, policy: str) -> Compiled:
        return parse_intervention(policy).compile(
            self.layout, self.size.layers, self.pathways, key="q"
        )

    @torch.inference_mode()
    def plain(self) -> Tensor:
        hidden = self.decoder.core(
            inputs_embeds=self.inputs.embeds[None], use_cache=False
        ).last_hidden_state
        return self.decoder.logits(hidden[:, -1])

    def policy(self, policy: str) -> Tensor:
        return answer_logits(self.decoder, [self.inputs], [[self.compile(policy)]])[0]

    @torch.inference_mode()
    def reference(self, policy: str) -> Tensor:
        core = self.decoder.core
        core.set_attn_implementation(EAGER)
        try:
            with apply(BatchMasks.of([self.compile(policy)], device=self.decoder.device)):
                hidden = core(
                    inputs_embeds=self.inputs.embeds[None], use_cache=False
                ).last_hidden_state
        finally:
            core.set_attn_implementation(SDPA)
        return self.decoder.logits(hidden[:, -1])

    def floor(self, policy: str) -> float:
        """Arithmetic as a share of the baseline run's: matrices by live rows, scores by kept edges
        of live rows.
        """
        compiled, n, size = self.compile(policy), len(self.layout), self.size
        rows = plan_passes([compiled]).row_layers if policy != "full" else n * size.layers
        per_edge = 4 * size.hidden
        kept = compiled.edges_kept if policy != "full" else compiled.edges_total
        whole = n * size.layers * size.row_layer_flops + compiled.edges_total * per_edge
        return (rows * size.row_layer_flops + kept * per_edge) / whole


def correctness(device: str) -> float:
    bench = Bench(SIZES["small"], device, torch.float32)
    probabilities = [
        (bench.policy(p).softmax(-1) - bench.reference(p).softmax(-1)).abs().max() for p in POLICIES
    ]
    gap = float(torch.stack(probabilities).max())
    assert gap <= 1e-5, gap
    return gap


def measure(bench: Bench, repeats: int) -> dict[str, Any]:
    plain, _ = clock(bench.plain, repeats, warm_up=3)
    found: dict[str, Any] = {
        "positions": len(bench.layout),
        "plain_ms": plain * 1e3,
        "policies": {},
    }
    found["plain_peak_gib"] = peak_gib(bench.plain)
    print(f"{found['positions']} positions: plain {plain * 1e3:.1f} ms", flush=True)
    for policy in POLICIES:
        seconds, _ = clock(lambda policy=policy: bench.policy(policy), repeats, warm_up=3)
        again, _ = clock(bench.plain, repeats, warm_up=1)
        compiled = bench.compile(policy)
        row = {
            "ms": seconds * 1e3,
            "plain_ms_then": again * 1e3,
            "speedup": again / seconds,
            "floor_speedup": 1 / bench.floor(policy),
            "edges_kept": compiled.edges_kept / compiled.edges_total,
            "row_layers": plan_passes([compiled]).row_layers
            / (len(bench.layout) * bench.size.layers),
            "peak_gib": peak_gib(lambda policy=policy: bench.policy(policy)),
        }
        if torch.cuda.is_available():
            row["profile"] = profile(lambda policy=policy: bench.policy(policy))
        found["policies"][policy] = row
        print(
            f"  {policy:26} {row['ms']:8.1f} ms: {row['speedup']:.2f} ×"
            f" (arithmetic allows {row['floor_speedup']:.2f} ×), {row['edges_kept']:.0%} of edges,"
            f" {row['row_layers']:.0%} of row-layers, {row['peak_gib']:.2f} GiB",
            flush=True,
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", nargs="+", choices=list(SIZES), default=["small"])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = False
    found: dict[str, Any] = {"hardware": hardware(), "float32_difference": correctness(device)}
    print(
        f"small, float32: largest difference in probability {found['float32_difference']:.1e}",
        flush=True,
    )
    bench = Bench(
        SIZES[options.size[0]], device, torch.bfloat16 if device == "cuda" else torch.float32
    )
    for name in options.size:
        bench.use(SIZES[name])
        found[name] = measure(bench, options.repeats)
        if options.out:
            options.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

"""Knockout sweeps at the 7B shape against the published procedure, in one process.

    python -m tests.benchmarks.sweep_gpu --size 7b --out sweep_7b.json  # one H200, a minute
    python -m tests.benchmarks.sweep_gpu                                  # small, also on a CPU

First the same small float32 weights through both, which must agree to 1e-5 in every probability.
Then the real size: ours takes the vision tower, compiling and planning into its time; of the
published procedure every so many-th layer is run (`--every`), and the median forward pass stands
for all. On random bfloat16 weights differences are noise: they are given beside the noise between
two kernels of the published procedure itself.
"""

from __future__ import annotations

import argparse
import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mapflow.model_adapters.interventions import Compiled, Decoder, Intervention, parse_intervention
from mapflow.model_adapters.interventions.execution.decoder_inputs import DecoderInputs
from mapflow.model_adapters.interventions.execution.incremental import answer_logits
from mapflow.model_adapters.interventions.execution.memory_plan import Widths, plan_passes
from mapflow.model_adapters.interventions.kernels.attention import SDPA
from tests.benchmarks.procedures import (
    ELEVEN,
    SIZES,
    VQL_TO_QL,
    Published,
    Size,
    clock,
    embeddings,
    hardware,
    language_model,
    peak_gib,
    profile,
    vision_tower,
)

BUDGET = 16 * 2**30
SETS = {"vql-to-ql": VQL_TO_QL, "eleven routes": ELEVEN}


class Bench:
    def __init__(self, size: Size, device: str, dtype: torch.dtype) -> None:
        self.size, self.layout = size, size.layout()
        self.model = language_model(size, device, dtype)
        self.vision = vision_tower(size, device, dtype)
        self.embeds = embeddings(size, len(self.layout), device, dtype)
        self.decoder = Decoder(self.model)
        self.published = Published(self.model, self.vision, self.embeds)
        self.widths = Widths.of(self.model.config, self.embeds.element_size())

    def attention(self, name: str) -> None:
        self.model.model.set_attn_implementation(name)

    def compile(self, routes: tuple[str, ...]) -> list[Compiled]:
        return [
            one.compile(self.layout, self.size.layers) for one in _windows(routes, self.size.layers)
        ]

    @torch.inference_mode()
    def ours(self, routes: tuple[str, ...]) -> Tensor:
        """Everything that a question costs: masks compiled, planned, the video encoded, all
        windows answered.
        """
        self.vision()
        compiled = self.compile(routes)
        planned = plan_passes(compiled, self.widths, BUDGET)
        return answer_logits(self.decoder, DecoderInputs(self.embeds), compiled, planned).softmax(
            -1
        )

    def of_published(self, compiled: list[Compiled], every: int) -> tuple[list[int], float, Tensor]:
        """Which were run, median seconds of a forward pass, probabilities."""
        rows = [0, *range(1, len(compiled), every)]
        seconds, found = [], []
        for row in rows:
            masks = self.published.prepare(compiled[row])
            each, probabilities = clock(
                lambda masks=masks: self.published(masks), 1, warm_up=row == 0
            )
            seconds.append(each)
            found.append(probabilities)
        return rows, sorted(seconds)[len(seconds) // 2], torch.stack(found)


@cache
def _windows(routes: tuple[str, ...], layers: int) -> list[Intervention]:
    """The plain run, then route by route every layer's window of nine; parsed once a run."""
    texts = [
        f"knockout:{route}@center={layer},window=9"
        for route in routes
        for layer in range(1, layers + 1)
    ]
    return [parse_intervention(text) for text in ("full", *texts)]


def correctness(device: str) -> float:
    """Largest difference in probability between ours and the published procedure, small, in
    float32.
    """
    bench = Bench(SIZES["small"], device, torch.float32)
    ours = bench.ours(ELEVEN)
    bench.attention("eager")
    rows, _, theirs = bench.of_published(bench.compile(ELEVEN), every=1)
    gap = float((ours[rows] - theirs).abs().max())
    effect = float((theirs - theirs[0]).abs().max())
    assert gap <= 1e-5 < 100 * gap + 1e-3 < effect, (gap, effect)
    return gap


def measure(bench: Bench, routes: tuple[str, ...], every: int, repeats: int) -> dict[str, Any]:
    compiled = bench.compile(routes)
    planned = plan_passes(compiled, bench.widths, BUDGET)
    bench.attention(SDPA)
    seconds, ours = clock(lambda: bench.ours(routes), repeats)
    planning, _ = clock(lambda: plan_passes(bench.compile(routes), bench.widths, BUDGET), repeats)
    memory = peak_gib(lambda: bench.ours(routes))
    bench.attention("eager")
    rows, each, theirs = bench.of_published(compiled, every)
    bench.attention("sdpa")
    _, _, again = bench.of_published(compiled, every)
    bench.attention(SDPA)
    published = each * (len(compiled) - 1)
    flops = planned.row_layers * bench.size.row_layer_flops
    return {
        "windows": len(compiled) - 1,
        "row_layers": planned.row_layers,
        "naive_row_layers": planned.naive_row_layers,
        "predicted_ratio": planned.naive_row_layers / planned.row_layers,
        "seconds": seconds,
        "planning_seconds": planning,
        "tera_flops": flops / 1e12,
        "tera_flops_per_second": flops / seconds / 1e12,
        "published_seconds": published,
        "published_forward_seconds": each,
        "published_forwards_run": len(rows),
        "ratio": published / seconds,
        "peak_gib": memory,
        "difference": float((ours[rows] - theirs).abs().max()),
        "noise_between_published_kernels": float((again - theirs).abs().max()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=list(SIZES), default="small")
    parser.add_argument("--every", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = False
    found: dict[str, Any] = {
        "hardware": hardware(),
        "settings": {"size": options.size, "window": 9},
    }
    found["float32_difference"] = correctness(device)
    print(f"small, float32: largest difference {found['float32_difference']:.1e}", flush=True)
    bench = Bench(
        SIZES[options.size], device, torch.bfloat16 if device == "cuda" else torch.float32
    )
    found["settings"]["positions"] = len(bench.layout)
    found["vision_seconds"], _ = clock(bench.vision, options.repeats)
    full = bench.compile(())
    found["plain_seconds"], _ = clock(
        lambda: bench.decoder.answer_logits([DecoderInputs(bench.embeds)], [full]), options.repeats
    )
    for name, routes in SETS.items():
        one = measure(bench, routes, options.every, options.repeats)
        if device == "cuda":
            one["profile"] = profile(lambda routes=routes: bench.ours(routes))
        found[name] = one
        print(
            f"{name:14} {one['seconds'] * 1e3:8.1f} ms"
            f" (planning {one['planning_seconds'] * 1e3:.0f});"
            f" published {one['published_seconds']:7.2f} s: {one['ratio']:5.1f} ×"
            f" (row-layers {one['predicted_ratio']:.1f} ×);"
            f" {one['tera_flops_per_second']:.0f} TFLOP/s; {one['peak_gib']:.2f} GiB;"
            f" differs by {one['difference']:.1e}, kernels of the published one"
            f" by {one['noise_between_published_kernels']:.1e}",
            flush=True,
        )
    if options.out:
        options.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

"""The size of a cache without unused keys, and a decoding step under it. One prompt, 7B shape.

    python -m tests.benchmarks.cache_memory --size 7b 7b-64 --out cache.json  # one GPU, a minute
    python -m tests.benchmarks.cache_memory                                   # small, also on a CPU

`whole` is the same prefill and the same steps with transformers' own cache under the same plan;
`full` drops nothing, so its ratio is the clock's noise. The floor is arithmetic: keys that the
last row may read, in all layers, as a share of the prompt's. Several interventions run as one
batch, a row each, and keep the union. Both ways are compared first: in float32, to 1e-5 in every
probability of four steps.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from mapflow.model_adapters.interventions import BatchMasks, Compiled, apply
from mapflow.model_adapters.interventions.execution.kept_keys import KeptKeys, keys_kept
from tests.benchmarks.policy_prefill import POLICIES, Bench
from tests.benchmarks.procedures import SIZES, clock, hardware, peak_gib

STEPS, TURNS = 16, 3
BATCHES = (*((policy,) for policy in POLICIES), POLICIES[1:3], POLICIES)


class Continued:
    """A prompt's prefill and the steps after it, with or without unused keys."""

    def __init__(self, bench: Bench, compiled: Sequence[Compiled], dropping: bool) -> None:
        self.bench, self.compiled, self.dropping = bench, compiled, dropping
        self.cache, self.masks = self._empty()

    def _empty(self) -> tuple[DynamicCache, KeptKeys | BatchMasks]:
        decoder = self.bench.decoder
        cache = DynamicCache(config=decoder.core.config)
        if self.dropping:
            return cache, KeptKeys(self.compiled, cache, decoder.device)
        return cache, BatchMasks.of(self.compiled, device=decoder.device)

    @torch.inference_mode()
    def prefill(self) -> Tensor:
        self.cache, self.masks = self._empty()
        with self._active():
            return self._run(
                inputs_embeds=self.bench.inputs.embeds.expand(len(self.compiled), -1, -1)
            )

    @torch.inference_mode()
    def step(self, number: int) -> Tensor:
        """The same token again: the cost of a step does not depend on it."""
        device = self.bench.decoder.device
        token = torch.ones(len(self.compiled), 1, dtype=torch.long, device=device)
        if isinstance(self.masks, KeptKeys):
            self.masks.generated = number + 1
        with apply(self.masks):
            return self._run(
                input_ids=token, position_ids=token * (len(self.bench.layout) + number)
            )

    def milliseconds_a_step(self) -> float:
        self.prefill()
        return statistics.median(
            clock(lambda number=number: self.step(number), 1, warm_up=0)[0] * 1e3
            for number in range(STEPS)
        )

    @property
    def mib(self) -> float:
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self.cache.layers) / 2**20

    @contextmanager
    def _active(self) -> Iterator[None]:
        with apply(self.masks):
            if isinstance(self.masks, KeptKeys):
                with self.masks.dropping(self.bench.decoder.layers):
                    yield
            else:
                yield

    def _run(self, **inputs: Tensor) -> Tensor:
        decoder = self.bench.decoder
        hidden = decoder.core(
            **inputs, past_key_values=self.cache, use_cache=True
        ).last_hidden_state
        return decoder.logits(hidden[:, -1])


def correctness(device: str) -> float:
    """Largest difference in probability over a prefill and four steps, small, in float32."""
    bench = Bench(SIZES["small"], device, torch.float32)
    gap = 0.0
    for policies in BATCHES:
        found = []
        for dropping in (True, False):
            one = Continued(bench, [bench.compile(policy) for policy in policies], dropping)
            logits = [one.prefill(), *(one.step(number) for number in range(4))]
            found.append(torch.stack(logits).softmax(-1))
        gap = max(gap, float((found[0] - found[1]).abs().max()))
    assert gap <= 1e-5, gap
    return gap


def measure(bench: Bench) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for policies in BATCHES:
        compiled = [bench.compile(policy) for policy in policies]
        kept, whole = (Continued(bench, compiled, dropping) for dropping in (True, False))
        peaks = [peak_gib(one.prefill) for one in (kept, whole)]
        turns = [[one.milliseconds_a_step() for one in (kept, whole)] for _ in range(TURNS)]
        step, whole_step = (statistics.median(times) for times in zip(*turns, strict=True))
        kept.prefill()
        whole.prefill()
        assert isinstance(kept.masks, KeptKeys) and kept.masks.bytes_kept == round(kept.mib * 2**20)
        keys, all_keys = keys_kept(compiled, bench.decoder.device)
        row = {
            "cache_mib": kept.mib,
            "whole_cache_mib": whole.mib,
            "share": kept.mib / whole.mib,
            "floor": keys / all_keys,
            "prefill_peak_gib": peaks[0],
            "whole_prefill_peak_gib": peaks[1],
            "step_ms": step,
            "whole_step_ms": whole_step,
            "step_ratio": step / whole_step,
        }
        rows[" | ".join(policies)] = row
        on_gpu = (
            f" peak of a prefill {peaks[0]:.2f} against {peaks[1]:.2f} GiB;" if peaks[1] else ""
        )
        print(
            f"  {' | '.join(policies)}\n"
            f"  {row['cache_mib']:9.1f} of {row['whole_cache_mib']:.1f} MiB:"
            f" {row['share']:.1%} (floor {row['floor']:.1%});{on_gpu} a step {step:.2f} against"
            f" {whole_step:.2f} ms: {row['step_ratio']:.2f} ×",
            flush=True,
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", nargs="+", choices=list(SIZES), default=["small"])
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
        print(f"{name}, {len(bench.layout)} positions", flush=True)
        found[name] = measure(bench)
        if options.out:
            options.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

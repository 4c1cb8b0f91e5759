"""A sweep of `vql-to-ql` against naive executors on a CPU, baseline included.

    python tests/benchmarks/sweep_cpu.py

Takes about two minutes at hidden size 512, 16 layers, 1,152 video tokens and 115 text tokens. Four
routes, every layer. Three procedures on the same random weights and inputs, each in its own
process, so that each has its own peak memory:

- `incremental`: the executor of this project;
- `naive`: one masked forward pass per route and layer through the same attention function, with
  logits of the last position only;
- `published`: as the authors' code does it, with eager attention, an additive n × n mask repeated
  over the heads, and logits of every position.

Prints a table and JSON: seconds (median of repeats for `incremental`) of wall clock and of
processor time, which depends less on other load; their ratios; the largest difference in
probability; and memory above the loaded model.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mapflow.model_adapters.interventions import (
    BatchMasks,
    Compiled,
    Decoder,
    Segment,
    TokenLayout,
    apply,
    parse_intervention,
)
from mapflow.model_adapters.interventions.execution.decoder_inputs import DecoderInputs
from mapflow.model_adapters.interventions.execution.incremental import answer_logits
from mapflow.model_adapters.interventions.execution.memory_plan import Widths, plan_passes

ROUTES = ("video->question", "video->last", "question->last", "last->last")
PROCEDURES = ("incremental", "naive", "published")


def prompt(video: int) -> TokenLayout:
    """115 text positions around eight frames."""
    frames = [(Segment("frame", i), video // 8) for i in range(8)]
    options = [(Segment("option", i), 9) for i in range(4)]
    text = [(Segment("stem"), 19), *options, (Segment("template"), 14), (Segment("last"), 1)]
    return TokenLayout.from_runs([(Segment("system"), 45), *frames, *text], true_option=0)


def model_of(options: argparse.Namespace, attention: str) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=options.vocabulary,
        hidden_size=options.hidden,
        intermediate_size=options.hidden * 43 // 16,
        num_hidden_layers=options.layers,
        num_attention_heads=options.hidden // 64,
        attn_implementation=attention,
        max_position_embeddings=4096,
    )
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.mul_(2)
    return model


def sweep(layout: TokenLayout, layers: int) -> list[Compiled]:
    """The baseline run, then for each route the window of nine layers around every layer."""
    texts = [
        f"knockout:{route}@center={layer},window=9"
        for route in ROUTES
        for layer in range(1, layers + 1)
    ]
    return [parse_intervention(text).compile(layout, layers) for text in ("full", *texts)]


@torch.inference_mode()
def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measures one procedure: seconds, MiB above the loaded model, probabilities of the answers."""
    layout = prompt(options.video)
    compiled = sweep(layout, options.layers)
    model = model_of(options, "eager" if options.procedure == "published" else "sdpa")
    embeds = (
        torch.randn(len(layout), options.hidden, generator=torch.Generator().manual_seed(1)) * 0.5
    )
    decoder = Decoder(model) if options.procedure != "published" else None
    loaded = _peak()
    facts: dict[str, Any] = {"n": len(layout), "loaded_mib": loaded}
    if options.procedure == "incremental":
        planned = plan_passes(compiled, Widths.of(model.config, 4))
        facts["plan"] = str(planned)
        seconds, busy = [], []
        probabilities = torch.empty(0)
        for _ in range(options.repeats):
            start, start_busy = time.perf_counter(), time.process_time()
            planned = plan_passes(compiled, Widths.of(model.config, 4))
            probabilities = answer_logits(
                decoder, DecoderInputs(embeds), compiled, planned
            ).softmax(-1)
            seconds.append(time.perf_counter() - start)
            busy.append(time.process_time() - start_busy)
        facts |= {
            "seconds": statistics.median(seconds),
            "processor_seconds": statistics.median(busy),
        }
        rows = list(range(len(compiled)))
    else:
        rows = [0, *range(1, len(compiled), options.every)]
        forward = _naive(decoder, embeds) if decoder else _published(model, embeds)
        forward(compiled[0])
        start, start_busy = time.perf_counter(), time.process_time()
        found = [forward(compiled[row]) for row in rows[1:]]
        share = len(found) / (len(compiled) - 1)
        facts["seconds"] = (time.perf_counter() - start) / share
        facts["processor_seconds"] = (time.process_time() - start_busy) / share
        probabilities = torch.stack([forward(compiled[0]), *found])
    facts["memory_mib"] = _peak() - loaded
    base = int(probabilities[0].argmax())
    facts["probabilities"] = dict(zip(map(str, rows), probabilities[:, base].tolist(), strict=True))
    return facts


def _naive(decoder: Decoder, embeds: torch.Tensor) -> Any:
    def forward(one: Compiled) -> torch.Tensor:
        with apply(BatchMasks.of([one])):
            hidden = decoder.core(inputs_embeds=embeds[None], use_cache=False).last_hidden_state
        return decoder.logits(hidden[:, -1])[0].softmax(-1)

    return forward


def _published(model: LlamaForCausalLM, embeds: torch.Tensor) -> Any:
    """Additive masks in the layers that cut, set by pre-hooks as in the authors' code."""
    heads, lowest = model.config.num_attention_heads, torch.finfo(embeds.dtype).min

    def forward(one: Compiled) -> torch.Tensor:
        hooks = []
        blocked = None
        for number, layer in enumerate(model.model.layers):
            if not one.allowed[number].all():
                if blocked is None:
                    mask = (~one.token_mask(number)).to(embeds.dtype) * lowest
                    blocked = mask.expand(1, heads, -1, -1).contiguous()

                def put(module: Any, args: Any, kwargs: Any, mask: torch.Tensor = blocked) -> Any:
                    return args, {**kwargs, "attention_mask": mask}

                hooks.append(layer.register_forward_pre_hook(put, with_kwargs=True))
        logits = model(inputs_embeds=embeds[None], output_attentions=True).logits[0, -1]
        for hook in hooks:
            hook.remove()
        return logits.float().softmax(-1)

    return forward


def _peak() -> float:
    """Peak memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (
        ("hidden", 512),
        ("layers", 16),
        ("video", 1152),
        ("vocabulary", 1000),
        ("threads", 2),
        ("repeats", 3),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument(
        "--every", type=int, default=1, help="run every N-th window of the naive procedures"
    )
    parser.add_argument("--procedure", choices=PROCEDURES, help=argparse.SUPPRESS)
    return parser


def main() -> None:
    options = arguments().parse_args()
    torch.set_num_threads(options.threads)
    if options.procedure:
        print(json.dumps(measure(options)))
        return
    found = {}
    for procedure in PROCEDURES:
        command = [sys.executable, __file__, *sys.argv[1:], "--procedure", procedure]
        found[procedure] = json.loads(
            subprocess.run(command, check=True, capture_output=True).stdout
        )
    ours = found["incremental"]
    print(ours["plan"])
    for procedure in PROCEDURES:
        one = found[procedure]
        gap = max(abs(p - ours["probabilities"][row]) for row, p in one["probabilities"].items())
        one |= {
            name.replace("seconds", "ratio"): one[name] / ours[name]
            for name in ("seconds", "processor_seconds")
        }
        one["largest_difference"] = gap
        print(
            f"{procedure:12} {one['seconds']:8.2f} s {one['ratio']:6.1f} ×"
            f"   processor {one['processor_seconds']:8.2f} s {one['processor_ratio']:6.1f} ×"
            f"   {one['memory_mib']:6.0f} MiB   differs by {gap:.1e}"
        )
    for one in found.values():
        del one["probabilities"]
    print(json.dumps({"settings": vars(options), **found}))


if __name__ == "__main__":
    main()

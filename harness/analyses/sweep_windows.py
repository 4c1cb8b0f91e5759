"""The windows of one question, which run together in the incremental executor.

The answer is the first token at the last position of the prompt. Results do not depend on the order
of questions, on batches or on processes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mapflow.harness.analyses.samples import is_right
from mapflow.model_adapters.device_memory import free_memory, out_of_memory
from mapflow.model_adapters.interventions import (
    Compiled,
    DecoderInputs,
    Intervention,
    Route,
    Window,
)
from mapflow.model_adapters.interventions.execution.incremental import answer_logits
from mapflow.model_adapters.interventions.execution.layer_arguments import NotIncremental
from mapflow.model_adapters.interventions.execution.memory_plan import (
    MemoryPlan,
    Widths,
    plan_passes,
)
from mapflow.model_adapters.interventions.language.layers import WindowStyle
from mapflow.model_adapters.interventions.language.policies import Knockout
from mapflow.model_adapters.video_llm import Prepared, VideoLLM
from mapflow.results.records.record import log_margin
from mapflow.results.records.sweep import TINY, relative_change

CPU_MEMORY_BUDGET, GPU_MEMORY_BUDGET = 2 * 2**30, 16 * 2**30
"""Bytes for windows that run together, unless the sweep names another number."""


def window_interventions(
    n_layers: int, routes: Sequence[Route], style: WindowStyle, size: int
) -> list[Intervention]:
    """The baseline run first, then route by route one window at every layer."""
    windows = [Window(style, layer, size) for layer in range(1, n_layers + 1)]
    knockouts = [Intervention((Knockout(route, window),)) for route in routes for window in windows]
    return [Intervention(), *knockouts]


def plan_windows(
    model: VideoLLM, inputs: DecoderInputs, compiled: Sequence[Compiled], budget: int | None
) -> MemoryPlan:
    """Plans how the windows run together within the memory budget.

    `budget` is in bytes; None is the default of the device.
    """
    widths = Widths.of(model.decoder.core.config, inputs.embeds.element_size())
    on_cpu = model.decoder.device.type == "cpu"
    default = CPU_MEMORY_BUDGET if on_cpu else GPU_MEMORY_BUDGET
    return plan_passes(compiled, widths, budget or default)


@dataclass
class Budget:
    """Bytes for windows that run together; None for the default of the device.

    A question for which memory runs out lowers it for the rest of the run.
    """

    bytes: int | None


def window_probabilities(
    model: VideoLLM, inputs: DecoderInputs, compiled: Sequence[Compiled], budget: Budget
) -> Float[Tensor, "window vocab"] | None:
    """Probabilities under each of `compiled`, on the CPU; None if logits are not finite.

    If memory runs out, the windows are planned again for half the memory, down to one window at a
    time. Raises what torch raises if even that does not fit.
    """
    while True:
        planned = plan_windows(model, inputs, compiled, budget.bytes)
        try:
            return _probabilities(model, inputs, compiled, planned)
        except Exception as error:
            if not out_of_memory(error) or planned.is_smallest:
                raise
        free_memory()
        budget.bytes = planned.bytes // 2


def _probabilities(
    model: VideoLLM, inputs: DecoderInputs, compiled: Sequence[Compiled], planned: MemoryPlan
) -> Float[Tensor, "window vocab"] | None:
    try:
        logits = answer_logits(model.decoder, inputs, compiled, planned)
    except NotIncremental:
        rows = [model.decoder.answer_logits([inputs], [[one]])[0] for one in compiled]
        logits = torch.cat(rows)
    return logits.softmax(-1).cpu() if torch.isfinite(logits).all() else None


def route_values(
    model: VideoLLM,
    prepared: Prepared,
    base: Float[Tensor, " vocab"],
    windows: Float[Tensor, "layer vocab"],
) -> dict[str, Any]:
    """The fields of a `SweepRecord` for the windows of one route, from probabilities."""
    answer = int(base.argmax())
    p_answer, p_target = float(base[answer]), float(base[prepared.target_id])
    p_answers, p_targets = windows[:, answer].tolist(), windows[:, prepared.target_id].tolist()
    tokens = windows.argmax(-1).tolist()
    tiny = {"p_answer": p_answer < TINY, "p_target": p_target < TINY}
    return {
        "answer": model.text([answer]),
        "correct": is_right(model, prepared, answer),
        "p_answer": p_answer,
        "p_target": p_target,
        "margin": _margin(prepared, base),
        "p_answers": tuple(p_answers),
        "p_targets": tuple(p_targets),
        "change_answer": relative_change(p_answer, p_answers),
        "change_target": relative_change(p_target, p_targets),
        "answers": tuple(model.text([token]) for token in tokens),
        "rights": tuple(is_right(model, prepared, token) for token in tokens),
        "margins": tuple(_margin(prepared, one) for one in windows),
        "tiny": tuple(name for name, is_tiny in tiny.items() if is_tiny),
    }


def largest_difference(
    model: VideoLLM,
    inputs: DecoderInputs,
    compiled: Sequence[Compiled],
    probabilities: Float[Tensor, "layer vocab"],
    layers: Sequence[int],
) -> float | None:
    """Audit: how far the windows' probabilities differ at most from one full forward pass each.

    `layers` are 1-based; None without any.
    """
    differences = []
    for layer in layers:
        (slow,) = model.decoder.answer_logits([inputs], [[compiled[layer - 1]]])
        difference = slow[0].softmax(-1).cpu() - probabilities[layer - 1]
        differences.append(float(difference.abs().max()))
    return max(differences, default=None)


def audited_layers(share: float, question_id: str, route: str, n_layers: int) -> tuple[int, ...]:
    """1-based layers whose windows are audited: a `share` (0 to 1) of all windows on average.

    The choice depends on these names alone, so every distribution of a sweep audits the same
    windows.
    """

    def chosen(layer: int) -> bool:
        digest = hashlib.sha256(f"audit/{question_id}/{route}/{layer}".encode()).digest()
        return int.from_bytes(digest[:8], "big") < share * 2**64

    return tuple(layer for layer in range(1, n_layers + 1) if chosen(layer))


def _margin(prepared: Prepared, probabilities: Float[Tensor, " vocab"]) -> float | None:
    letters = prepared.question.letters
    return log_margin(
        {
            name: float(probabilities[i])
            for name, i in zip(letters, prepared.option_ids, strict=True)
        }
    )

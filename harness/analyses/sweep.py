"""Sweep: knock out each route in a window around every layer, and see what becomes of the answer's probability.

One question at a time, all its windows in one go (the incremental executor). The answer is the first token at the
prompt's last position. Records are independent of order, batch and process. Knows no checkpoint, no task, no file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mapflow.harness.analyses.sweep_audit import audited_layers
from mapflow.model_adapters.interventions import (
    Compiled,
    DecoderInputs,
    Intervention,
    Route,
    Window,
)
from mapflow.model_adapters.interventions.execution.incremental import answer_logits
from mapflow.model_adapters.interventions.execution.memory_plan import (
    MemoryPlan,
    Widths,
    plan_passes,
)
from mapflow.model_adapters.interventions.language.layers import SIZED_STYLES, WindowStyle
from mapflow.model_adapters.interventions.language.policies import Knockout
from mapflow.model_adapters.video_llm import Prepared, VideoLLM
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import Question
from mapflow.results.records.record import log_margin
from mapflow.results.records.sweep import TINY, SweepRecord, relative_change

Samples = Literal["correct", "wrong", "all"]


@dataclass(frozen=True)
class Sweep:
    """What to sweep. `samples`: only questions that the plain run answers so; `audit`: the share of windows to run
    again naively; `memory_budget` in bytes (None: whatever it takes)."""

    routes: tuple[Route, ...]
    style: WindowStyle = "center"
    size: int = 9
    samples: Samples = "all"
    audit: float = 0.0
    memory_budget: int | None = None

    @property
    def window(self) -> int | None:
        """`size` where the style has one: windows that reach to the first or last layer are the same for every size."""
        return self.size if self.style in SIZED_STYLES else None

    def compile(self, question: Question, prepared: Prepared, n_layers: int) -> list[Compiled]:
        """The plain run first, then route by route a window at every layer.

        Raises MapflowError naming the question where its prompt lacks a segment that a route names.
        """
        windows = [Window(self.style, layer, self.size) for layer in range(1, n_layers + 1)]
        knockouts = [
            Intervention((Knockout(route, window),)) for route in self.routes for window in windows
        ]
        try:
            return [one.compile(prepared.layout, n_layers) for one in (Intervention(), *knockouts)]
        except MapflowError as error:
            raise MapflowError(
                f"question {question.question_id} cannot be swept: {error}"
            ) from None

    def plan(
        self, model: VideoLLM, compiled: Sequence[Compiled], inputs: DecoderInputs
    ) -> MemoryPlan:
        """How the interventions will be run, and at what cost."""
        widths = Widths.of(model.decoder.core.config, inputs.embeds.element_size())
        return plan_passes(compiled, widths, self.memory_budget)


def sweep_question(model: VideoLLM, prepared: Prepared, sweep: Sweep) -> list[SweepRecord]:
    """A record a route, in the sweep's order. Raises MapflowError where a route does not fit the prompt."""
    n_layers = model.decoder.n_layers
    compiled = sweep.compile(prepared.question, prepared, n_layers)
    (inputs,) = model.embed([prepared])
    if sweep.samples != "all":
        (base,) = model.decoder.answer_logits([inputs], [compiled[:1]])
        if not torch.isfinite(base).all():
            return _unswept(prepared.question, sweep, error="the model's logits are not finite")
        right = _is_right(model, prepared, int(base.argmax()))
        if right != (sweep.samples == "correct"):
            reason = f"answered {'right' if right else 'wrong'} by the plain run"
            return _unswept(prepared.question, sweep, left_out=reason)
    logits = answer_logits(model.decoder, inputs, compiled, sweep.plan(model, compiled, inputs))
    if not torch.isfinite(logits).all():
        return _unswept(prepared.question, sweep, error="the model's logits are not finite")
    probabilities = logits.softmax(-1).cpu()
    return [
        _record(
            model,
            prepared,
            sweep,
            route,
            probabilities[0],
            probabilities[1 + number * n_layers :][:n_layers],
            _audit(
                model,
                inputs,
                compiled[1 + number * n_layers :],
                probabilities[1 + number * n_layers :],
                layers,
            ),
            layers,
        )
        for number, route in enumerate(sweep.routes)
        for layers in [
            audited_layers(sweep.audit, prepared.question.question_id, str(route), n_layers)
        ]
    ]


def failed(question: Question, sweep: Sweep, reason: str) -> list[SweepRecord]:
    """The records of a question that could not be asked; `reason` is one line."""
    return _unswept(question, sweep, error=" ".join(reason.split()))


def _audit(
    model: VideoLLM,
    inputs: DecoderInputs,
    compiled: Sequence[Compiled],
    probabilities: Float[Tensor, "window vocab"],
    layers: Sequence[int],
) -> float | None:
    """Largest difference between these windows' probabilities and those of one whole forward pass each."""
    differences = []
    for layer in layers:
        (naive,) = model.decoder.answer_logits([inputs], [[compiled[layer - 1]]])
        differences.append(
            float((naive[0].softmax(-1).cpu() - probabilities[layer - 1]).abs().max())
        )
    return max(differences, default=None)


def _record(
    model: VideoLLM,
    prepared: Prepared,
    sweep: Sweep,
    route: Route,
    base: Float[Tensor, " vocab"],
    windows: Float[Tensor, "layer vocab"],
    audit_difference: float | None,
    audited: tuple[int, ...],
) -> SweepRecord:
    answer = int(base.argmax())
    p_answer, p_target = float(base[answer]), float(base[prepared.target_id])
    p_answers, p_targets = windows[:, answer].tolist(), windows[:, prepared.target_id].tolist()
    tiny = {"p_answer": p_answer < TINY, "p_target": p_target < TINY}
    return SweepRecord(
        **_identity(prepared.question, sweep, route),
        answer=model.text([answer]),
        correct=_is_right(model, prepared, answer),
        p_answer=p_answer,
        p_target=p_target,
        margin=_margin(prepared, base),
        p_answers=tuple(p_answers),
        p_targets=tuple(p_targets),
        change_answer=relative_change(p_answer, p_answers),
        change_target=relative_change(p_target, p_targets),
        answers=tuple(model.text([int(row.argmax())]) for row in windows),
        margins=tuple(_margin(prepared, row) for row in windows),
        tiny=tuple(name for name, flagged in tiny.items() if flagged),
        audited=audited,
        audit_difference=audit_difference,
    )


def _unswept(
    question: Question, sweep: Sweep, *, left_out: str | None = None, error: str | None = None
) -> list[SweepRecord]:
    return [
        SweepRecord(**_identity(question, sweep, route), left_out=left_out, error=error)
        for route in sweep.routes
    ]


def _identity(question: Question, sweep: Sweep, route: Route) -> dict[str, Any]:
    return {
        **question.identity,
        "route": str(route),
        "style": sweep.style,
        "window": sweep.window,
        "n_options": len(question.options),
        "target": question.target_text,
    }


def _is_right(model: VideoLLM, prepared: Prepared, token: int) -> bool:
    """By the option's text, as some questions list the right one twice; open answers by their first token."""
    question, text = prepared.question, model.text([token])
    if isinstance(question.target, str):
        return token == prepared.target_id
    return text in question.letters and (
        question.options[question.letters.index(text)] == question.options[question.target]
    )


def _margin(prepared: Prepared, row: Float[Tensor, " vocab"]) -> float | None:
    letters = prepared.question.letters
    return log_margin(
        {name: float(row[i]) for name, i in zip(letters, prepared.option_ids, strict=True)}
    )

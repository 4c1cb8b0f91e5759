"""SweepRecord: the change of one question's answer by cutting one route in each layer; means of it.

One line of sweep.jsonl per question and route. The relative change is (p_knockout - p_base) /
p_base * 100 (paper, Section 3). With a p_base below 1e-6 the ratio would be noise: it is left out,
and `tiny` names it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mapflow.results.records.base import JsonlRecord, Summary, layer_table, means

TINY = 1e-6


@dataclass(frozen=True)
class SweepRecord(JsonlRecord):
    """Tuples hold one entry per layer; entry l - 1 belongs to the window placed at (1-based) layer
    l.

    Attributes:
        answer, p_answer: first token of the baseline run's answer as text, and its probability.
        p_target: probability of the right answer in the baseline run.
        margin: lead of the best option in natural log probability in the baseline run.
        answers, margins: the same under the knockout.
        p_answers, p_targets: probability under the knockout of the baseline answer and of the right
            answer.
        change_answer, change_target: their relative changes in percent.
        tiny: baseline probabilities ("p_answer", "p_target") too small for a relative change.
        audited: layers whose windows were checked against one full forward pass each.
        audit_difference: largest difference in any token's probability that the check found.
        left_out: why the question was not swept (`--samples`); the numbers are then empty, as with
            an error.
    """

    FILE: ClassVar[str] = "sweep.jsonl"
    RUN: ClassVar[str] = "a sweep"
    NAMED_BY: ClassVar[str] = "route"

    question_id: str
    video_id: str
    task: str
    route: str
    style: str
    window: int | None
    protocol: str
    n_options: int
    target: str
    answer: str | None = None
    correct: bool | None = None
    p_answer: float | None = None
    p_target: float | None = None
    margin: float | None = None
    p_answers: tuple[float, ...] | None = None
    p_targets: tuple[float, ...] | None = None
    change_answer: tuple[float, ...] | None = None
    change_target: tuple[float, ...] | None = None
    answers: tuple[str, ...] | None = None
    margins: tuple[float | None, ...] | None = None
    tiny: tuple[str, ...] = ()
    audited: tuple[int, ...] = ()
    audit_difference: float | None = None
    left_out: str | None = None
    error: str | None = None

    @property
    def swept(self) -> bool:
        return self.error is None and self.left_out is None


def relative_change(base: float, knocked_out: Sequence[float]) -> tuple[float, ...] | None:
    """Each probability's change in percent of `base`; None if the base is too small (`TINY`)."""
    return tuple((p - base) / base * 100 for p in knocked_out) if base >= TINY else None


@dataclass(frozen=True)
class SweepSummary(Summary):
    """Means over the questions of one route, one entry per layer; empty where no question has a
    change.

    Attributes:
        change_answer, change_target: mean relative change in percent.
        flipped: share of questions whose answer changed.
        tiny_answer, tiny_target: questions whose baseline probability is too small for a relative
            change.
        left_out, errors: questions that were not swept, and those that failed.
    """

    NAMED_BY: ClassVar[str] = "route"

    route: str
    n: int
    change_answer: tuple[float, ...]
    change_target: tuple[float, ...]
    flipped: tuple[float, ...]
    tiny_answer: int
    tiny_target: int
    left_out: int
    errors: int
    audited: int
    audit_difference: float | None


def summarize_sweep(records: Sequence[SweepRecord], route: str) -> SweepSummary:
    """Means over the records of one route; a question counts wherever its change is defined."""
    own = [record for record in records if record.route == route]
    swept = [record for record in own if record.swept]
    differences = [r.audit_difference for r in swept if r.audit_difference is not None]
    return SweepSummary(
        route=route,
        n=len(swept),
        change_answer=means([r.change_answer for r in swept if r.change_answer is not None]),
        change_target=means([r.change_target for r in swept if r.change_target is not None]),
        flipped=means(
            [[float(a != r.answer) for a in r.answers] for r in swept if r.answers is not None]
        ),
        tiny_answer=sum("p_answer" in r.tiny for r in swept),
        tiny_target=sum("p_target" in r.tiny for r in swept),
        left_out=sum(r.left_out is not None for r in own),
        errors=sum(r.error is not None for r in own),
        audited=sum(len(r.audited) for r in swept),
        audit_difference=max(differences, default=None),
    )


def sweep_table(summaries: Sequence[SweepSummary]) -> str:
    """One row per layer, one column per route: mean relative change of the baseline answer in
    percent.
    """
    counts = [
        ["n", *(one.n for one in summaries)],
        ["p_base < 1e-6", *(f"{one.tiny_answer} / {one.tiny_target}" for one in summaries)],
        ["left out", *(one.left_out for one in summaries)],
        ["errors", *(one.errors for one in summaries)],
    ]
    columns = [(one.route, one.change_answer) for one in summaries]
    return layer_table(columns, lambda change: f"{change:+.1f}", counts)

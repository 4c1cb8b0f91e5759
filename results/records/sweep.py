"""SweepRecord: what cutting one route does to one question, layer by layer, and its line in sweep.jsonl.

Relative change is (p_knockout − p_base) / p_base × 100 (design.md, Interventions). Where p_base is below 1e-6 the ratio
would be noise: it is left out, and the record says for which answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mapflow.results.records.base import Line

TINY = 1e-6


@dataclass(frozen=True)
class SweepRecord(Line):
    """One question × route; tuples hold an entry a layer, entry l − 1 for the window placed at (1-based) layer l.

    `answer` is the plain run's (its first token, as text), `p_answer` that token's probability and `p_target` the right
    answer's; `margin` is the best option's lead in natural log probability. `answers`, `margins`, `p_answers` and
    `p_targets` are the same under the knockout, of the plain run's answer and of the right one. `tiny` names the
    probabilities of the plain run that are too small for a relative change. `audited` are layers that were run a second
    time, naively, `audit_difference` the largest difference in any token's probability found there. `left_out` says why
    a question was not swept (`--samples`), `error` why it could not be; both leave the numbers empty.
    """

    FILE: ClassVar[str] = "sweep.jsonl"
    RUN: ClassVar[str] = "a sweep"

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
    def key(self) -> tuple[str, str]:
        """What makes a record unique within a sweep, and its place in a sorted file."""
        return self.question_id, self.route

    @property
    def swept(self) -> bool:
        return self.error is None and self.left_out is None


def relative_change(base: float, knocked_out: Sequence[float]) -> tuple[float, ...] | None:
    """In percent of `base`, an entry each; None where the base is too small (`TINY`)."""
    return tuple((p - base) / base * 100 for p in knocked_out) if base >= TINY else None

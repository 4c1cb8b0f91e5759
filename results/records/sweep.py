"""SweepRecord: the change of one question's answer by cutting one route in each layer.

One line of sweep.jsonl per question and route. The relative change is (p_knockout - p_base) /
p_base * 100 (paper, Section 3). With a p_base below 1e-6 the ratio would be noise: it is left out,
and `tiny` names it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mapflow.results.records.base import JsonlRecord

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
        rights: whether the answer under the knockout is right.
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
    PER_LAYER: ClassVar[tuple[str, ...]] = (
        *("p_answers", "p_targets", "change_answer", "change_target"),
        *("answers", "rights", "margins"),
    )

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
    rights: tuple[bool, ...] | None = None
    margins: tuple[float | None, ...] | None = None
    tiny: tuple[str, ...] = ()
    audited: tuple[int, ...] = ()
    audit_difference: float | None = None
    left_out: str | None = None
    error: str | None = None

    def contradiction(self) -> str | None:
        if self.correct and not self.still_right:
            return "correct, but neither answers nor rights of the windows"
        return super().contradiction()

    @property
    def still_right(self) -> tuple[bool, ...]:
        """Whether each window's answer is right, of a question whose baseline answer is.

        Folders of earlier versions lack `rights`: the right answer is then the baseline's text.
        """
        same = tuple(text == self.answer for text in self.answers or ())
        return same if self.rights is None else self.rights


def relative_change(base: float, knocked_out: Sequence[float]) -> tuple[float, ...] | None:
    """Each probability's change in percent of `base`; None if the base is too small (`TINY`)."""
    return tuple((p - base) / base * 100 for p in knocked_out) if base >= TINY else None

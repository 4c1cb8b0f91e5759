"""SweepRecord: the change of one question's answer by cutting one route in each layer; means of it.

One line of sweep.jsonl per question and route. The relative change is (p_knockout - p_base) /
p_base * 100 (paper, Section 3). With a p_base below 1e-6 the ratio would be noise: it is left out,
and `tiny` names it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from mapflow.results.contract.question import coded
from mapflow.results.records.base import JsonlRecord, Summary, layer_table, means

if TYPE_CHECKING:
    from mapflow.results.statistics import Interval

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

    @property
    def still_right(self) -> tuple[bool, ...]:
        """Whether each window's answer is right, of a question whose baseline answer is.

        Folders of earlier versions lack `rights`: the right answer is then the baseline's text.
        """
        same = tuple(text == self.answer for text in self.answers or ())
        return same if self.rights is None else self.rights


def accuracy_drops(records: Sequence[SweepRecord]) -> tuple[int, tuple[Interval, ...]]:
    """The drop of accuracy in each layer among the questions that the baseline run answers right.

    In points, with 95 % intervals clustered by video (paper, Table 2), and the number of these
    questions. Without any there are no intervals. `records` are of one route.
    """
    import numpy as np

    from mapflow.results.statistics import accuracy_drop

    right = [record for record in records if record.measured and record.correct]
    if not right:
        return 0, ()
    cluster = np.array(coded(record.video_id for record in right)[1])
    before = np.ones(len(right), dtype=bool)
    layers = np.array([record.still_right for record in right], dtype=bool).T
    drops = [accuracy_drop(before, after, cluster) for after in layers]
    return len(right), tuple(in_points(one) for one in drops if one is not None)


def in_points(one: Interval) -> Interval:
    """An interval of fractions in percentage points."""
    return replace(one, estimate=100 * one.estimate, low=100 * one.low, high=100 * one.high)


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
        n_right: questions that the baseline run answers right.
        drops: their accuracy minus 100 %, in points, with its 95 % interval.
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
    n_right: int
    drops: tuple[Interval, ...]
    tiny_answer: int
    tiny_target: int
    left_out: int
    errors: int
    audited: int
    audit_difference: float | None


def summarize_sweep(records: Sequence[SweepRecord], route: str) -> SweepSummary:
    """Means over the records of one route; a question counts wherever its change is defined."""
    own = [record for record in records if record.route == route]
    swept = [record for record in own if record.measured]
    n_right, drops = accuracy_drops(own)
    differences = [r.audit_difference for r in swept if r.audit_difference is not None]
    return SweepSummary(
        route=route,
        n=len(swept),
        change_answer=means([r.change_answer for r in swept if r.change_answer is not None]),
        change_target=means([r.change_target for r in swept if r.change_target is not None]),
        flipped=means(
            [[float(a != r.answer) for a in r.answers] for r in swept if r.answers is not None]
        ),
        n_right=n_right,
        drops=drops,
        tiny_answer=sum("p_answer" in r.tiny for r in swept),
        tiny_target=sum("p_target" in r.tiny for r in swept),
        left_out=sum(r.left_out is not None for r in own),
        errors=sum(r.error is not None for r in own),
        audited=sum(len(r.audited) for r in swept),
        audit_difference=max(differences, default=None),
    )


def sweep_table(summaries: Sequence[SweepSummary]) -> str:
    """One row per layer, two columns per route: the mean relative change of the baseline answer in
    percent, and the accuracy drop among the questions that the baseline run answers right.
    """
    columns = [
        (f"{one.route}\n{name}", cells)
        for one in summaries
        for name, cells in (
            ("change", [f"{change:+.1f}" for change in one.change_answer]),
            ("drop", [drop_text(drop) for drop in one.drops]),
        )
    ]
    counts = [
        ["n", *(n for one in summaries for n in (one.n, one.n_right))],
        [
            "p_base < 1e-6",
            *(t for one in summaries for t in (f"{one.tiny_answer} / {one.tiny_target}", "")),
        ],
        ["left out", *(n for one in summaries for n in (one.left_out, ""))],
        ["errors", *(n for one in summaries for n in (one.errors, ""))],
    ]
    return layer_table(columns, str, counts)


def drop_text(drop: Interval) -> str:
    """A drop in points with its interval: "-24.1 [-29.0, -19.8]"."""
    return f"{drop.estimate:+.1f} [{drop.low:+.1f}, {drop.high:+.1f}]"

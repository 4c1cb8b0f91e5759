"""Means of a sweep over questions, by route and layer, and their table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from mapflow.results.contract.question import coded
from mapflow.results.records.base import Summary, layer_table, means
from mapflow.results.records.sweep import SweepRecord
from mapflow.results.statistics import Interval, accuracy_drop


def accuracy_drops(records: Sequence[SweepRecord]) -> tuple[int, tuple[Interval, ...]]:
    """The drop of accuracy in each layer among the questions that the baseline run answers right.

    In points, with 95 % intervals clustered by video (paper, Table 2), and the number of these
    questions. Without any there are no intervals. `records` are of one route.
    """
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

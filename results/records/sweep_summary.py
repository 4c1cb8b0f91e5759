"""A sweep's curves in brief: by route the mean relative change at every layer, and what was left out of it.

A question counts for a mean only where its change is defined; how many are not is part of the summary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tabulate import tabulate

from mapflow.results.records.sweep import SweepRecord


@dataclass(frozen=True)
class RouteSummary:
    """`change_answer` and `change_target` are means over questions in percent, an entry a layer, empty without any;
    `tiny_answer` and `tiny_target` count questions whose plain probability is too small for one."""

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

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name != "route"}


def summarize_sweep(records: Sequence[SweepRecord]) -> list[RouteSummary]:
    """One summary a route, in order of first appearance. `flipped` is the share of questions whose answer changed."""
    by_route: dict[str, list[SweepRecord]] = {}
    for record in records:
        by_route.setdefault(record.route, []).append(record)
    return [_summary(route, own) for route, own in by_route.items()]


def _summary(route: str, records: list[SweepRecord]) -> RouteSummary:
    swept = [record for record in records if record.swept]
    differences = [r.audit_difference for r in swept if r.audit_difference is not None]
    return RouteSummary(
        route=route,
        n=len(swept),
        change_answer=_means([r.change_answer for r in swept if r.change_answer is not None]),
        change_target=_means([r.change_target for r in swept if r.change_target is not None]),
        flipped=_means(
            [[float(a != r.answer) for a in r.answers] for r in swept if r.answers is not None]
        ),
        tiny_answer=sum("p_answer" in r.tiny for r in swept),
        tiny_target=sum("p_target" in r.tiny for r in swept),
        left_out=sum(r.left_out is not None for r in records),
        errors=sum(r.error is not None for r in records),
        audited=sum(len(r.audited) for r in swept),
        audit_difference=max(differences, default=None),
    )


def _means(curves: Sequence[Sequence[float]]) -> tuple[float, ...]:
    return tuple(sum(column) / len(column) for column in zip(*curves, strict=True))


def sweep_table(summaries: Sequence[RouteSummary]) -> str:
    """A row a layer, a column a route: mean relative change of the plain run's answer, in percent."""
    layers = max((len(one.change_answer) for one in summaries), default=0)
    rows = [
        [
            layer + 1,
            *(
                f"{one.change_answer[layer]:+.1f}" if one.change_answer else "–"
                for one in summaries
            ),
        ]
        for layer in range(layers)
    ]
    counts = [
        ["n", *(one.n for one in summaries)],
        ["p_base < 1e-6", *(f"{one.tiny_answer} / {one.tiny_target}" for one in summaries)],
        ["left out", *(one.left_out for one in summaries)],
        ["errors", *(one.errors for one in summaries)],
    ]
    return tabulate(
        [*rows, *counts],
        headers=["layer", *(one.route for one in summaries)],
        disable_numparse=True,
        stralign="right",
    )

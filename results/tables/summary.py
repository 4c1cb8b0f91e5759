"""Accuracy of a run: by subtask, macro and micro, with the numbers that keep it honest.

Macro averages the subtasks' accuracies (the leaderboards), micro all questions (the paper's code). Questions that
could not be asked count for neither and are reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tabulate import tabulate

from mapflow.results.records.record import Record


@dataclass(frozen=True)
class Summary:
    """One intervention's results. Accuracies and rates are shares in 0..1; edges are means a question, over layers."""

    intervention: str
    accuracy: dict[str, float]
    macro: float | None
    micro: float | None
    chance_macro: float | None
    chance_micro: float | None
    edges_kept: float | None
    edges_total: float | None
    n: int
    invalid: int
    errors: int

    @property
    def valid_rate(self) -> float | None:
        """Share of answers that name an option."""
        return 1 - self.invalid / self.n if self.n else None

    @property
    def edges_share(self) -> float | None:
        """Edges kept over causal edges."""
        return (
            self.edges_kept / self.edges_total
            if self.edges_kept is not None and self.edges_total
            else None
        )

    def to_json(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if key != "intervention"}


def summarize(records: Iterable[Record]) -> list[Summary]:
    """One summary an intervention, in order of first appearance."""
    by_intervention: dict[str, list[Record]] = {}
    for record in records:
        by_intervention.setdefault(record.intervention, []).append(record)
    return [_summary(name, own) for name, own in by_intervention.items()]


def _summary(intervention: str, records: list[Record]) -> Summary:
    answered = [record for record in records if record.error is None]
    by_task: dict[str, list[Record]] = {}
    for record in answered:
        by_task.setdefault(record.task, []).append(record)
    accuracy = {task: _mean(r.correct for r in own) for task, own in sorted(by_task.items())}
    return Summary(
        intervention=intervention,
        accuracy={task: value for task, value in accuracy.items() if value is not None},
        macro=_mean(accuracy.values()),
        micro=_mean(r.correct for r in answered),
        chance_macro=_mean(_mean(r.chance for r in own) for own in by_task.values()),
        chance_micro=_mean(r.chance for r in answered),
        edges_kept=_mean(r.edges_kept for r in answered),
        edges_total=_mean(r.edges_total for r in answered),
        n=len(answered),
        invalid=sum(not r.valid for r in answered),
        errors=len(records) - len(answered),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [float(value) for value in values if value is not None]
    return sum(known) / len(known) if known else None


def summary_table(summaries: Sequence[Summary]) -> str:
    """A row an intervention: subtasks, macro, micro, chance, valid answers, edges kept, n. Accuracies in percent."""
    tasks = sorted({task for summary in summaries for task in summary.accuracy})
    names = short_names(tasks)
    errors = any(summary.errors for summary in summaries)
    header = [
        "intervention",
        *names,
        "macro",
        "micro",
        "chance",
        "valid",
        "edges kept",
        "edges %",
        "n",
    ]
    rows = [
        [
            s.intervention,
            *(percent(s.accuracy.get(task)) for task in tasks),
            percent(s.macro),
            percent(s.micro),
            percent(s.chance_macro),
            percent(s.valid_rate),
            f"{s.edges_kept:,.0f}" if s.edges_kept is not None else "–",
            percent(s.edges_share),
            s.n,
            *([s.errors] if errors else []),
        ]
        for s in summaries
    ]
    align = ["left", *["right"] * (len(header) - 1 + errors)]
    return tabulate(
        rows,
        headers=[*header, *(["errors"] if errors else [])],
        colalign=align,
        disable_numparse=True,
    )


def percent(share: float | None) -> str:
    """0.512 as "51.2"; a dash where there is nothing to say."""
    return "–" if share is None else f"{100 * share:.1f}"


def short_names(tasks: Sequence[str]) -> list[str]:
    """Task names without the words that all of them begin with: mapflow_motion_count → count."""
    split = [task.split("_") for task in tasks]
    shared = 0
    while len(split) > 1 and all(
        len(s) > shared + 1 and s[shared] == split[0][shared] for s in split
    ):
        shared += 1
    return ["_".join(s[shared:]) for s in split]

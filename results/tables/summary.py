"""Accuracy of one run by subtask, macro and micro, with chance, invalid answers and edge counts.

Macro averages the accuracies of the subtasks (as leaderboards do), micro averages all questions (as
the authors' code does). Failed questions count for neither and are reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from mapflow.results.records.record import Record
from mapflow.results.tables.formats import Column, text_table


@dataclass(frozen=True)
class Summary:
    """Results of one intervention on one benchmark.

    `n` questions are answered, of the `of` that the benchmark has (None: unknown). Accuracies and
    rates are fractions. Edges count one head, are summed over layers and averaged over questions.
    `tasks` names all tasks. A task has no accuracy if some of its answers are neither right nor
    wrong; macro and micro are then None. Chance is None if a question has no options.
    `scores` holds, per task, the mean of each metric that the task computes itself.
    """

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
    tasks: tuple[str, ...] = ()
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    benchmark: str = ""
    of: int | None = None

    @property
    def valid_rate(self) -> float | None:
        """Fraction of answers that name an option."""
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
        """All fields but the names; `tasks` only if some have no accuracy, `scores` only if any,
        `of` only if known."""
        values = asdict(self)
        del values["intervention"], values["benchmark"]
        if self.of is None:
            del values["of"]
        if set(self.tasks) == set(self.accuracy):
            del values["tasks"]
        if not self.scores:
            del values["scores"]
        return values


def summarize(records: Iterable[Record], sizes: Mapping[str, int] | None = None) -> list[Summary]:
    """One summary per benchmark and intervention, in order of first appearance.

    sizes: the number of questions that benchmarks have.
    """
    grouped: dict[str, dict[str, list[Record]]] = {}
    for record in records:
        own = grouped.setdefault(record.benchmark, {})
        own.setdefault(record.intervention, []).append(record)
    return [
        replace(_summary(name, own), benchmark=benchmark, of=(sizes or {}).get(benchmark))
        for benchmark, by_intervention in grouped.items()
        for name, own in by_intervention.items()
    ]


def summaries_json(summaries: Sequence[Summary]) -> dict[str, Any]:
    """Intervention → results; with several benchmarks, benchmark → intervention → results."""
    blocks: dict[str, dict[str, Any]] = {}
    for one in summaries:
        blocks.setdefault(one.benchmark, {})[one.intervention] = one.to_json()
    return next(iter(blocks.values())) if len(blocks) == 1 else blocks


def summary_blocks(summaries: Sequence[Summary], titles: Mapping[str, str] | None = None) -> str:
    """One table per benchmark, each under its title; a single one without."""
    blocks: dict[str, list[Summary]] = {}
    for one in summaries:
        blocks.setdefault(one.benchmark, []).append(one)
    if len(blocks) == 1:
        return summary_table(summaries)
    return "\n\n".join(
        f"{(titles or {}).get(name, name)}\n{summary_table(own)}" for name, own in blocks.items()
    )


def of_all(n: int, of: int | None) -> str:
    """How many answers there are: "320", or "20 of 320" if some lack."""
    return f"{n:,}" if of in (None, n) else f"{n:,} of {of:,}"


def _summary(intervention: str, records: list[Record]) -> Summary:
    answered = [record for record in records if record.error is None]
    by_task: dict[str, list[Record]] = {}
    for record in answered:
        by_task.setdefault(record.task, []).append(record)
    graded = {
        task: own
        for task, own in sorted(by_task.items())
        if all(r.correct is not None for r in own)
    }
    accuracy = {task: _mean(r.correct for r in own) for task, own in graded.items()}
    complete = len(graded) == len(by_task)
    guessable = complete and all(record.chance is not None for record in answered)
    return Summary(
        intervention=intervention,
        accuracy={task: value for task, value in accuracy.items() if value is not None},
        macro=_mean(accuracy.values()) if complete else None,
        micro=_mean(r.correct for r in answered) if complete else None,
        chance_macro=_mean(_mean(r.chance for r in own) for own in by_task.values())
        if guessable
        else None,
        chance_micro=_mean(r.chance for r in answered) if guessable else None,
        edges_kept=_mean(r.edges_kept for r in answered),
        edges_total=_mean(r.edges_total for r in answered),
        n=len(answered),
        invalid=sum(not r.valid for r in answered),
        errors=len(records) - len(answered),
        tasks=tuple(sorted(by_task)),
        scores={task: means for task, own in sorted(by_task.items()) if (means := _scores(own))},
    )


def _scores(records: Sequence[Record]) -> dict[str, float]:
    """Metric → mean over the questions that have it, unless one has no score at all."""
    if any(record.scores is None for record in records):
        return {}
    names = dict.fromkeys(name for record in records for name in record.scores or {})
    return {
        name: sum(known) / len(known)
        for name in names
        if (known := [r.scores[name] for r in records if r.scores and name in r.scores])
    }


def _mean(values: Iterable[float | None]) -> float | None:
    known = [float(value) for value in values if value is not None]
    return sum(known) / len(known) if known else None


def summary_table(summaries: Sequence[Summary]) -> str:
    """One row per intervention on one benchmark, as text. Accuracies and rates are in percent."""
    tasks = sorted({task for s in summaries for task in (*s.accuracy, *s.tasks)})
    own = dict.fromkeys(
        (task, name) for s in summaries for task, of in s.scores.items() for name in of
    )
    columns: list[Column[Summary]] = [
        Column("intervention", lambda s: s.intervention, right=False),
        *(
            Column(name, lambda s, task=task: percent(s.accuracy.get(task)))
            for task, name in zip(tasks, short_names(tasks), strict=True)
        ),
        *(
            Column(
                name if len(tasks) == 1 else f"{short_names(tasks)[tasks.index(task)]} {name}",
                lambda s, task=task, name=name: _score(s.scores.get(task, {}).get(name)),
            )
            for task, name in own
        ),
        Column("macro", lambda s: percent(s.macro)),
        Column("micro", lambda s: percent(s.micro)),
        Column("chance", lambda s: percent(s.chance_macro)),
        Column("valid", lambda s: percent(s.valid_rate)),
        Column("edges kept", lambda s: "–" if s.edges_kept is None else f"{s.edges_kept:,.0f}"),
        Column("edges %", lambda s: percent(s.edges_share)),
        Column("n", lambda s: of_all(s.n, s.of)),
    ]
    if any(summary.errors for summary in summaries):
        columns.append(Column("errors", lambda s: str(s.errors)))
    return text_table(columns, summaries)


def _score(value: float | None) -> str:
    """A score in the task's own unit: three digits after the point at most."""
    return "–" if value is None else f"{value:.3f}".rstrip("0").rstrip(".")


def percent(share: float | None) -> str:
    """A fraction in percent: 0.512 as "51.2", None as a dash."""
    return "–" if share is None else f"{100 * share:.1f}"


def short_names(tasks: Sequence[str]) -> list[str]:
    """Task names without their common first words: mapflow_motion_count → count."""
    split = [task.split("_") for task in tasks]
    shared = 0
    while len(split) > 1 and all(
        len(s) > shared + 1 and s[shared] == split[0][shared] for s in split
    ):
        shared += 1
    return ["_".join(s[shared:]) for s in split]

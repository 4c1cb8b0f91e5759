"""Runs against a baseline, as a table and as sentences.

Both sides of a comparison are reduced to the questions that both runs answered; the notes below the
table report how many were left out and why.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace

import numpy as np

from mapflow.results.contract.errors import MapflowError
from mapflow.results.runs.provenance import disagreements, provenance
from mapflow.results.runs.run import Run, labels
from mapflow.results.statistics import (
    Comparison,
    PairedRuns,
    RunOutcomes,
    accuracy_drop,
    cochran_q,
    compare_runs,
    holm,
    minimal_detectable_effect,
    pair,
    points,
    sentence,
)
from mapflow.results.tables.formats import Column, Row, Table, choose


@dataclass(frozen=True)
class ComparedPair:
    """Two runs and their comparison.

    `together` holds both runs' outcomes on the questions that are compared. `not_asked` counts the
    questions left out because they failed in either run; `warnings` are the sentences of
    `provenance.disagreements`.
    """

    baseline: Run
    treatment: Run
    comparison: Comparison
    together: PairedRuns
    not_asked: int
    warnings: tuple[str, ...]

    @property
    def text(self) -> str:
        return sentence(self.comparison, self.treatment.title)


def compare_with_baseline(
    baseline: Run,
    treatments: Sequence[Run],
    *,
    margin: float = 0.02,
    intersect: bool = False,
    names: Sequence[str] | None = None,
) -> list[ComparedPair]:
    """Compares every treatment with `baseline`; p-values are corrected over all of them (Holm).

    `names` are the baseline's and then the treatments' names (default: `labels`). Raises
    MapflowError if the runs answer different questions, unless `intersect`, and for input that the
    statistics refuse.
    """
    if not treatments:
        raise MapflowError(
            "only one run is given; name a second one, or the folder of a run with several"
            " interventions"
        )
    first, *others = names or labels([baseline, *treatments])
    pairs = [
        _compare(baseline, treatment, (first, name), margin, intersect)
        for treatment, name in zip(treatments, others, strict=True)
    ]
    return _corrected(pairs)


def compare_groups(
    groups: Sequence[Sequence[Run]], *, margin: float = 0.02, intersect: bool = False
) -> list[ComparedPair]:
    """Compares every group (the runs of one benchmark, baseline first) with its own baseline.

    The p-values of all groups are corrected as one family.
    """
    pairs = [
        pair
        for baseline, *treatments in groups
        for pair in compare_with_baseline(baseline, treatments, margin=margin, intersect=intersect)
    ]
    return _corrected(pairs)


def _corrected(pairs: Sequence[ComparedPair]) -> list[ComparedPair]:
    p_values = holm(np.array([pair.comparison.test.p_value for pair in pairs]))
    return [
        replace(one, comparison=replace(one.comparison, p_holm=float(p)))
        for one, p in zip(pairs, p_values, strict=True)
    ]


def _compare(
    baseline: Run, treatment: Run, names: tuple[str, str], margin: float, intersect: bool
) -> ComparedPair:
    runs = (baseline, treatment)
    not_asked = either_failed(runs, names, intersect)
    chosen = [outcomes(run, name, without=not_asked) for run, name in zip(runs, names, strict=True)]
    found = compare_runs(*chosen, margin=margin, intersect=intersect)
    together = pair(chosen, intersect=intersect)
    return ComparedPair(*runs, found, together, len(not_asked), tuple(disagreements(*runs)))


def either_failed(runs: Sequence[Run], names: Sequence[str], intersect: bool) -> set[str]:
    """Shared questions that failed in at least one run.

    Raises MapflowError if the runs were asked different questions, unless `intersect`. A failed
    question counts as asked.
    """
    failed = {question for run in runs for question in run.question_id[run.failed].tolist()}
    if not failed:
        return failed
    everything = [
        RunOutcomes(name, run.question_id, run.correct, gold=run.gold)
        for run, name in zip(runs, names, strict=True)
    ]
    return failed & set(pair(everything, intersect=intersect).question_id.tolist())


def outcomes(run: Run, name: str, *, without: Set[str] = frozenset()) -> RunOutcomes:
    """The run's answers for the statistics, without failed questions and without those in
    `without`."""
    keep = ~run.failed
    if without:
        keep &= ~np.isin(run.question_id, list(without))
    return RunOutcomes(
        name,
        run.question_id[keep],
        run.correct[keep],
        None if run.video_id is None else run.video_id[keep],
        run.task[keep],
        run.gold[keep],
    )


def paired(runs: Sequence[Run], names: Sequence[str], intersect: bool) -> PairedRuns:
    """All runs, reduced to the questions that every run answered."""
    failed = either_failed(runs, names, intersect)
    chosen = [outcomes(run, name, without=failed) for run, name in zip(runs, names, strict=True)]
    return pair(chosen, intersect=intersect)


def all_differ(runs: Sequence[Run], intersect: bool) -> str:
    """One sentence on whether several runs differ (Cochran's Q, clustered by shared videos)."""
    together = paired(runs, labels(runs), intersect)
    about = f"All {len(runs)} runs on {runs[0].title} at once"
    try:
        test = cochran_q(together.correct, together.cluster if together.clustered else None)
    except MapflowError as error:
        return f"{about}: {error}."
    return f"{about}: p {p_text(test.p_value)} ({test.method}, {together.n:,} questions)."


def comparison_table(pairs: Sequence[ComparedPair], more: Sequence[str] = ()) -> Table:
    """One row per pair; the notes hold sentences, excluded counts, warnings, `more` and methods."""
    notes = [f"{one.text}." for one in pairs]
    for one in pairs:
        # Notes of several pairs stand together, so each names its treatment and benchmark.
        about = f"{one.comparison.treatment} on {one.treatment.title}"
        if one.not_asked:
            notes.append(
                f"{about}: {one.not_asked:,} questions could not be asked in one run or the other"
                " and are left out."
            )
        notes += [
            f"{about}: {note}"
            for note in (*one.comparison.notes, *_could_be_seen(one.comparison), *one.warnings)
        ]
    notes += more
    methods = dict.fromkeys(
        f"{p.comparison.difference.method}; {p.comparison.test.method}" for p in pairs
    )
    notes.append(
        f"Differences in points; methods: {' | '.join(methods)}; p (Holm) is corrected for"
        f" {len(pairs)} tests."
    )
    notes.append(DROP_NOTE)
    runs = [run for one in pairs for run in (one.baseline, one.treatment)]
    return Table(
        "Comparisons with the baseline",
        _COLUMNS,
        [_row(p) for p in pairs],
        list(dict.fromkeys(notes)),
        provenance(runs),
    )


def _could_be_seen(found: Comparison) -> list[str]:
    """For an inconclusive verdict: the smallest difference that these questions can detect."""
    if found.non_inferiority.verdict != "inconclusive" or not found.cells.discordance:
        return []
    try:
        smallest = minimal_detectable_effect(
            found.n, found.cells.discordance, design_effect=found.design_effect
        )
    except MapflowError:
        return [
            f"With so few flips among {found.n:,} questions no difference would be found with 80 %"
            " power."
        ]
    return [
        f"With as many flips, {found.n:,} questions find a difference of {100 * smallest:.1f}"
        " points with 80 % power."
    ]


def subtask_table(pairs: Sequence[ComparedPair]) -> Table:
    """One row per pair and subtask; no rows if no comparison has several subtasks."""
    rows: list[Row] = [
        {
            "benchmark": one.treatment.title,
            "treatment": one.comparison.treatment,
            "baseline": one.comparison.baseline,
            "subtask": stratum.task,
            "n": stratum.cells.n,
            "lost": stratum.cells.lost,
            "gained": stratum.cells.gained,
            "difference": stratum.difference.estimate,
            "low": stratum.difference.low,
            "high": stratum.difference.high,
            **drop_values(one.together, stratum.task),
            "p": stratum.test.p_value,
            "p_holm": stratum.p_holm,
        }
        for one in pairs
        if one.comparison.strata
        for stratum in one.comparison.strata.differences
    ]
    notes = [
        f"{one.comparison.treatment} on {one.treatment.title}: macro average"
        f" {points(macro.interval.estimate)} points,"
        f" 95 % CI {points(macro.interval.low)}…{points(macro.interval.high)}, p"
        f" {p_text(macro.test.p_value)};"
        " do subtasks differ in the difference? p"
        f" {p_text(one.comparison.strata.homogeneity.p_value)}."
        for one in pairs
        if one.comparison.strata and (macro := one.comparison.strata.macro)
    ]
    runs = [run for one in pairs for run in (one.baseline, one.treatment)]
    columns = choose(
        (*_COLUMNS, _SUBTASK),
        *(
            "treatment",
            "subtask",
            "lost",
            "gained",
            "difference",
            "95 % CI",
            "drop among right",
            "p",
            "p (Holm)",
        ),
    )
    return Table("By subtask", columns, rows, notes, provenance(runs))


def _row(one: ComparedPair) -> Row:
    found = one.comparison
    return {
        "benchmark": one.treatment.title,
        "treatment": found.treatment,
        "baseline": found.baseline,
        "baseline_accuracy": found.baseline_accuracy.estimate,
        "treatment_accuracy": found.treatment_accuracy.estimate,
        "both_right": found.cells.both,
        "lost": found.cells.lost,
        "gained": found.cells.gained,
        "both_wrong": found.cells.neither,
        "n": found.n,
        "videos": found.n_clusters,
        "difference": found.difference.estimate,
        "low": found.difference.low,
        "high": found.difference.high,
        "p": found.test.p_value,
        "p_holm": found.p_holm,
        "p_mcnemar": found.mcnemar.p_value,
        "margin": found.non_inferiority.margin,
        "verdict": found.non_inferiority.verdict,
        "p_non_inferior": found.non_inferiority.p_value,
        "equivalent": found.equivalence.equivalent,
        **drop_values(one.together),
        "not_asked": one.not_asked,
        "left_out_baseline": found.left_out[0],
        "left_out_treatment": found.left_out[1],
    }


def drop_values(together: PairedRuns, task: str | None = None) -> Row:
    """The accuracy drop among the questions that the first of two runs answers right.

    `task` restricts it to one subtask. The drop is a fraction with its 95 % interval, clustered by
    video; None where the first run answers no question right.
    """
    chosen = np.ones(together.n, dtype=bool)
    if task is not None and together.task is not None:
        chosen = together.task == together.task_names.index(task)
    before, after = together.correct[:, chosen]
    cluster = together.cluster[chosen] if together.clustered else None
    drop = accuracy_drop(before, after, cluster)
    limits = (None,) * 3 if drop is None else (drop.estimate, drop.low, drop.high)
    return {
        "n_right": int(before.sum()),
        **dict(zip(("drop", "drop_low", "drop_high"), limits, strict=True)),
    }


def drop_text(row: Row) -> str:
    """The cell of `drop_values`."""
    if row["drop"] is None:
        return "–"
    interval = (
        "" if row["drop_low"] is None else f" {points(row['drop_low'])}…{points(row['drop_high'])}"
    )
    return f"{points(row['drop'])}{interval} (n = {row['n_right']:,})"


DROP_NOTE = (
    "Drop among right: points of accuracy lost among the n questions that the baseline answers"
    " right, with its 95 % interval by video."
)


def p_text(p: float, equals: str = "= ") -> str:
    """A p-value with three digits or as a bound: "= 0.031", "< 0.001"."""
    return "< 0.001" if p < 0.001 else f"{equals}{p:.3f}"


_COLUMNS: tuple[Column[Row], ...] = (
    Column("treatment", lambda r: r["treatment"], right=False),
    Column("baseline", lambda r: r["baseline"], right=False),
    Column("benchmark", lambda r: r["benchmark"], right=False),
    Column("n", lambda r: f"{r['n']:,}"),
    Column("lost", lambda r: f"{r['lost']:,}"),
    Column("gained", lambda r: f"{r['gained']:,}"),
    Column("both right", lambda r: f"{r['both_right']:,}"),
    Column("both wrong", lambda r: f"{r['both_wrong']:,}"),
    Column("difference", lambda r: points(r["difference"])),
    Column("95 % CI", lambda r: f"{points(r['low'])}…{points(r['high'])}"),
    Column("drop among right", drop_text),
    Column("p", lambda r: p_text(r["p"], "")),
    Column("p (Holm)", lambda r: p_text(r["p_holm"], "")),
    Column("verdict", lambda r: r["verdict"], right=False),
)
"""What `comparison_table` shows, in this order. Raw values for CSV and JSON come from `_row`."""

_SUBTASK: Column[Row] = Column("subtask", lambda r: r["subtask"], right=False)

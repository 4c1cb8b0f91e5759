"""Runs against a baseline, as a table and as sentences.

Both sides of a comparison are reduced to the questions that both runs answered; the notes below the
table report how many were left out and why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace

import numpy as np

from mapflow.results.contract.errors import MapflowError
from mapflow.results.runs.provenance import disagreements, provenance
from mapflow.results.runs.run import Run, incomplete_note, labels
from mapflow.results.statistics import (
    Comparison,
    PairedRuns,
    RunOutcomes,
    clustered_standard_error,
    cochran_q,
    compare_runs,
    count,
    judge_together,
    pair,
    points,
    sentence,
)
from mapflow.results.tables.cells import (
    DROP_NOTE,
    LEGEND,
    MACRO_COLUMNS,
    MARGIN_COLUMNS,
    PROBABILITY_COLUMNS,
    PROBABILITY_NOTE,
    difference_marks,
    drop_text,
    drop_values,
    macro_sentence,
    macro_values,
    p_text,
    probability_values,
)
from mapflow.results.tables.formats import Column, Row, Table
from mapflow.results.tables.summary import of_all, percent


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
    """Compares every treatment with `baseline`; all are corrected as one family (Holm).

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
    return corrected(pairs)


def compare_groups(
    groups: Sequence[Sequence[Run]], *, margin: float = 0.02, intersect: bool = False
) -> list[ComparedPair]:
    """Compares every group (the runs of one benchmark, baseline first) with its own baseline.

    The p-values and verdicts of all groups are corrected as one family.
    """
    pairs = [
        pair
        for baseline, *treatments in groups
        for pair in compare_with_baseline(baseline, treatments, margin=margin, intersect=intersect)
    ]
    return corrected(pairs)


def corrected(pairs: Sequence[ComparedPair]) -> list[ComparedPair]:
    """The same pairs with p-values and verdicts corrected as one family."""
    judged = judge_together([one.comparison for one in pairs])
    return [replace(one, comparison=found) for one, found in zip(pairs, judged, strict=True)]


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
        keep &= np.array([question not in without for question in run.question_id], dtype=bool)
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
    return f"{about}: p {p_text(test.p_value)} ({test.method}, {count(together.n, 'question')})."


def comparison_tables(
    pairs: Sequence[ComparedPair],
    together: Mapping[str, str] | None = None,
    left_out: Sequence[str] = (),
) -> list[Table]:
    """One `comparison_table` per benchmark; `together` has a note for some of the benchmarks.

    `left_out` are notes for all tables.
    """
    tables = []
    for benchmark, own in by_benchmark(pairs).items():
        more = [(together or {})[benchmark]] if benchmark in (together or {}) else []
        tables.append(comparison_table(own, [*more, *left_out]))
    return titled(tables, pairs)


def by_benchmark(pairs: Sequence[ComparedPair]) -> dict[str, list[ComparedPair]]:
    groups: dict[str, list[ComparedPair]] = {}
    for one in pairs:
        groups.setdefault(one.baseline.benchmark, []).append(one)
    return groups


def titled(tables: list[Table], pairs: Sequence[ComparedPair]) -> list[Table]:
    """Tables of several benchmarks name theirs."""
    titles = [own[0].baseline.title for own in by_benchmark(pairs).values()]
    if len(tables) < 2:
        return tables
    return [
        replace(table, title=f"{table.title}: {title}")
        for table, title in zip(tables, titles, strict=True)
    ]


def comparison_table(pairs: Sequence[ComparedPair], more: Sequence[str] = ()) -> Table:
    """One row per pair; the notes hold sentences, excluded counts, warnings, `more` and methods."""
    notes = [f"{one.text}." for one in pairs]
    for one in pairs:
        # Notes of several pairs stand together, so each names its treatment and benchmark.
        about = f"{one.comparison.treatment} on {one.treatment.title}"
        if one.not_asked:
            notes.append(
                f"{about}: {count(one.not_asked, 'question')} could not be asked in one run or the"
                f" other and {'is' if one.not_asked == 1 else 'are'} left out."
            )
        notes += [f"{about}: {note}" for note in (*one.comparison.notes, *one.warnings)]
    macros = [
        (one, one.comparison.strata.macro) for one in pairs if one.comparison.strata is not None
    ]
    notes += [
        macro_sentence(
            one.comparison.treatment, f"{one.comparison.baseline} on {one.treatment.title}", macro
        )
        for one, macro in macros
    ]
    for benchmark in dict.fromkeys(one.baseline.benchmark for one in pairs):
        own = [one for one in pairs if one.baseline.benchmark == benchmark]
        notes += incomplete_note([own[0].baseline, *(one.treatment for one in own)])
    notes += more
    methods = dict.fromkeys(p.comparison.difference.method for p in pairs)
    notes += [
        "Differences in points, with the interval that inverts the test; methods:"
        f" {' | '.join(methods)}.",
        *dict.fromkeys(_family(one.comparison, len(pairs)) for one in pairs),
    ]
    notes.append(DROP_NOTE)
    runs = [run for one in pairs for run in (one.baseline, one.treatment)]
    rows = [_row(p) for p in pairs]
    measured = any(row["p_target_change"] is not None for row in rows)
    notes += [PROBABILITY_NOTE] if measured else []
    hidden = [*(() if macros else MACRO_COLUMNS), *(() if measured else PROBABILITY_COLUMNS)]
    return Table(
        "Comparisons with the baseline",
        [c for c in COLUMNS if c not in hidden],
        rows,
        list(dict.fromkeys(notes)),
        provenance(runs),
        more=[*MORE_COLUMNS, *hidden],
        compact=COMPACT,
        marks=[difference_marks("difference", rows)],
        legend=LEGEND,
    )


def _family(found: Comparison, shown: int) -> str:
    """Which comparisons the p-values and verdicts are corrected for, of which `shown` are here."""
    family = found.non_inferiority.family
    if family == 1:
        return "p (Holm) and verdict are those of the one comparison: nothing is corrected."
    return (
        f"p (Holm) and verdicts are corrected for the family of all {family} comparisons with a"
        f" baseline made together{', on all benchmarks' * (family > shown)}; those of macro"
        " averages are a family likewise. Intervals and p"
        " are each comparison's own."
    )


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
        "of": one.baseline.total,
        "videos": found.n_clusters,
        "difference": found.difference.estimate,
        "low": found.difference.low,
        "high": found.difference.high,
        "standard_error": _standard_error(one.together),
        "p": found.test.p_value,
        "p_holm": found.p_holm,
        "margin": found.non_inferiority.margin,
        "verdict": found.non_inferiority.verdict,
        "p_non_inferior": found.non_inferiority.p_value,
        "p_non_inferior_holm": found.non_inferiority.p_holm,
        "p_inferior": found.non_inferiority.p_inferior,
        "p_inferior_holm": found.non_inferiority.p_inferior_holm,
        "family": found.non_inferiority.family,
        "equivalent": found.equivalence.equivalent,
        **drop_values(one.together),
        "not_asked": one.not_asked,
        "left_out_baseline": found.left_out[0],
        "left_out_treatment": found.left_out[1],
        **probability_values((one.baseline, one.treatment), one.together),
        **macro_values(found.strata and found.strata.macro),
    }


def _standard_error(pair: PairedRuns) -> float | None:
    """Of the difference, by video, as lmms-eval computes standard errors."""
    before, after = pair.correct
    return clustered_standard_error(after.astype(int) - before, pair.cluster)


COLUMNS: tuple[Column[Row], ...] = (
    Column("treatment", lambda r: r["treatment"], right=False),
    Column("baseline", lambda r: r["baseline"], right=False),
    Column("benchmark", lambda r: r["benchmark"], right=False),
    Column("n", lambda r: of_all(r["n"], r.get("of"))),
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
    *PROBABILITY_COLUMNS,
    *MACRO_COLUMNS,
)
"""What `comparison_table` shows, in this order. Raw values for CSV and JSON come from `_row`."""

MORE_COLUMNS: tuple[Column[Row], ...] = (
    Column("baseline accuracy", lambda r: percent(r["baseline_accuracy"])),
    Column("treatment accuracy", lambda r: percent(r["treatment_accuracy"])),
    Column("videos", lambda r: f"{r['videos']:,}"),
    Column("p (non-inferior, Holm)", lambda r: p_text(r["p_non_inferior_holm"], "")),
    *MARGIN_COLUMNS,
)
"""Shown on request."""

COMPACT = (
    "treatment", "baseline", "benchmark", "n", "treatment accuracy", "difference", "95 % CI",
    "p (Holm)", "verdict",
)  # fmt: skip

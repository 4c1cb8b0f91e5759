"""A grid of runs against one baseline: several seeds of an intervention are one condition.

A condition with one run is compared like any other run. A condition with several seeds is compared
by its mean over seeds, and its interval includes the variance between seeds. All p-values and
verdicts are corrected as one family (Holm).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product

from mapflow.results.contract.errors import MapflowError
from mapflow.results.runs.provenance import disagreements, other_model, provenance
from mapflow.results.runs.run import Run, incomplete_note
from mapflow.results.statistics import (
    FEW_CLUSTERS,
    Interval,
    MacroDifference,
    NonInferiority,
    PairedRuns,
    accuracy,
    claim,
    count,
    detectable,
    few_videos,
    found_with_power,
    judge,
    judge_macros,
    non_inferiority,
    points,
    seed_condition,
    seeds_drop,
    seeds_macro_difference,
)
from mapflow.results.tables.cells import (
    DROP_NOTE,
    LEGEND,
    MACRO_COLUMNS,
    difference_marks,
    drop_row,
    drop_text,
    drop_values,
    macro_sentence,
    macro_values,
    p_text,
)
from mapflow.results.tables.comparison import compare_with_baseline, either_failed, paired
from mapflow.results.tables.formats import Column, Marks, Row, Table
from mapflow.results.tables.summary import of_all, percent


def condition_of(run: Run) -> str:
    """The intervention without its seed: random:ratio=0.58,seed=3 → random:ratio=0.58."""
    if run.seed is None:
        return run.intervention
    return re.sub(
        rf":seed={run.seed}(?=\+|$)|(?<=:)seed={run.seed},|,seed={run.seed}(?=[,+]|$)",
        "",
        run.intervention,
    )


@dataclass(frozen=True)
class _Condition:
    """One condition against its baseline, not yet corrected for its family.

    `notes` tell of questions that are left out, and of few videos; `could_find` of the change that
    would have been found.
    """

    name: str
    runs: Sequence[Run]
    row: Row
    difference: Interval
    alone: NonInferiority
    macro: MacroDifference | None
    notes: Sequence[str]
    could_find: str


def ablation_table(
    baseline: Run, treatments: Sequence[Run], *, margin: float = 0.02, intersect: bool = False
) -> Table:
    """`ablation_tables` of one benchmark."""
    (table,) = ablation_tables([[baseline, *treatments]], margin=margin, intersect=intersect)
    return table


def ablation_tables(
    groups: Sequence[Sequence[Run]], *, margin: float = 0.02, intersect: bool = False
) -> list[Table]:
    """One table per group (the runs of one benchmark, baseline first), one row per condition.

    All conditions of all groups are corrected as one family, as in `compare_groups`.

    Raises MapflowError without a treatment; for runs of another model than the baseline's; if two
    runs have the same intervention; and for input that the comparison refuses.
    """
    found = [
        [
            _condition(group[0], name, runs, margin, intersect)
            for name, runs in _conditions(*group).items()
        ]
        for group in groups
    ]
    every = [one for own in found for one in own]
    judged = zip(
        *judge(
            [one.difference.estimate for one in every],
            [one.row["p"] for one in every],
            [one.alone for one in every],
        ),
        strict=True,
    )
    macros = judge_macros([one.macro for one in every])
    corrected = [
        (one, p, verdict, macro)
        for one, (p, verdict), macro in zip(every, judged, macros, strict=True)
    ]
    family = _family([group[0].title for group in groups], len(every), margin)
    tables = []
    for group, own in zip(groups, found, strict=True):
        tables.append(_table(group, corrected[: len(own)], family))
        corrected = corrected[len(own) :]
    return tables


def _conditions(baseline: Run, *treatments: Run) -> dict[str, list[Run]]:
    """Condition → its runs. Raises as `ablation_tables`."""
    if not treatments:
        raise MapflowError(
            f"only {baseline.intervention!r} was run on {baseline.title}: nothing to compare it"
            " with"
        )
    conditions: dict[str, list[Run]] = {}
    for run in treatments:
        if other := other_model(baseline, run):
            raise MapflowError(
                f"ablate compares interventions of one model, but {str(baseline.source)!r} and"
                f" {str(run.source)!r} differ ({other}); compare models with mapflow compare"
            )
        if run.intervention == baseline.intervention:
            raise MapflowError(
                f"the baseline {baseline.intervention!r} is there more than once, in"
                f" {str(baseline.source)!r} and {str(run.source)!r}; name it once, e.g. as"
                " folder:intervention, or use mapflow compare"
            )
        conditions.setdefault(condition_of(run), []).append(run)
    for name, runs in conditions.items():
        seeds = [run.seed for run in runs]
        if len(set(seeds)) < len(seeds):
            twice = max(seeds, key=seeds.count)
            said = f"condition {name!r}" if twice is None else f"seed {twice} of condition {name!r}"
            raise MapflowError(
                f"{said} is there more than once; name folders of one model, without repeated runs"
            )
    return conditions


def _family(titles: Sequence[str], conditions: int, margin: float) -> str:
    """Which conditions the p-values and verdicts are corrected for."""
    said = "p (Holm) and verdict are those of the one condition: nothing is corrected"
    if conditions > 1:
        benchmarks = f" on {' and '.join(titles)}" if len(titles) > 1 else ""
        said = (
            f"p (Holm) and verdicts are corrected for the family of all {conditions}"
            f" conditions{benchmarks}; those of macro averages are a family likewise"
        )
    return f"Margin {margin * 100:g} point{'s' * (margin != 0.01)}; {said}."


def _table(
    group: Sequence[Run],
    corrected: Sequence[tuple[_Condition, float, NonInferiority, MacroDifference | None]],
    family: str,
) -> Table:
    """The table of one benchmark: conditions with corrected p-value, verdict, macro average."""
    baseline, about = group[0], f"{group[0].intervention} on {group[0].title}"
    conditions = {one.name: one.runs for one, *_ in corrected}
    rows: list[Row] = []
    sentences: list[str] = []
    for one, p, verdict, macro in corrected:
        rows.append(
            {
                **one.row,
                "p_holm": p,
                "verdict": verdict.verdict,
                "p_non_inferior": verdict.p_value,
                "p_non_inferior_holm": verdict.p_holm,
                "family": verdict.family,
                **macro_values(macro),
            }
        )
        sentences.append(f"{claim(one.name, about, one.difference, p, verdict)}.")
        if verdict.verdict == "inconclusive":
            sentences[-1] += f" {one.could_find}"
        if macro:
            sentences.append(macro_sentence(one.name, about, macro))
    warnings = [
        f"{one}: {warning}"
        for i, (name, runs) in enumerate(conditions.items())
        for one, pairs in (
            (name, [(baseline, run) for run in runs]),
            (f"seeds of {name}", list(combinations(runs, 2))),
            *(
                (f"{name} and {other}", list(product(runs, others)))
                for other, others in list(conditions.items())[i + 1 :]
            ),
        )
        for warning in dict.fromkeys(w for pair in pairs for w in disagreements(*pair))
    ]
    notes = [
        f"Baseline: {baseline.intervention} ({baseline.model}),"
        f" {percent(rows[0]['baseline_accuracy'])} %.",
        *sentences,
        *(f"{one.name}: {note}" for one, *_ in corrected for note in one.notes),
        *(
            f"{name}: two seeds have one degree of freedom between them, so the interval is wide"
            " wherever they differ; five seeds show far more."
            for name, runs in conditions.items()
            if len(runs) == 2
        ),
        "Differences to the baseline in points; several seeds are one condition: their mean, with"
        " the variance between"
        " seeds in the interval; spread is the standard deviation of the seeds' accuracies.",
        family,
        DROP_NOTE,
        *incomplete_note(group),
        *warnings,
    ]
    columns = _COLUMNS
    if any(macro for *_, macro in corrected):
        columns = (*_COLUMNS, *MACRO_COLUMNS)
    best = max(row["accuracy"] for row in rows)
    highest = frozenset(k for k, row in enumerate(rows) if row["accuracy"] == best)
    return Table(
        f"Ablation on {baseline.title}",
        columns,
        rows,
        notes,
        provenance(group),
        more=_MORE_COLUMNS,
        compact=_COMPACT,
        marks=[
            Marks("accuracy [95 % CI]", highest if len(rows) > 1 else frozenset()),
            replace(difference_marks("difference", rows), best=frozenset()),
        ],
        legend=LEGEND,
    )


def _condition(
    baseline: Run, name: str, runs: Sequence[Run], margin: float, intersect: bool
) -> _Condition:
    if len(runs) == 1:
        (one,) = compare_with_baseline(
            baseline, runs, margin=margin, intersect=intersect, names=(baseline.intervention, name)
        )
        found, together, failed = one.comparison, one.together, one.not_asked
        drop, macro = drop_values(together), found.strata and found.strata.macro
        difference, test, n = found.difference, found.test, found.n
        alone = found.non_inferiority
        at, before, spread = found.treatment_accuracy, found.baseline_accuracy.estimate, None
        lost, gained = found.cells.lost, found.cells.gained
        could_find = found_with_power(found.detectable)
    else:
        names = [baseline.intervention, *(run.intervention for run in runs)]
        together = paired([baseline, *runs], names, intersect)
        failed = len(either_failed([baseline, *runs], names, intersect))
        cluster = together.cluster if together.clustered else None
        first, seeds = together.correct[0], together.correct[1:]
        condition = seed_condition(first, seeds, cluster)
        difference, test, n = condition.difference, condition.test, together.n
        alone = non_inferiority(condition.counted, margin)
        at, before, spread = condition.accuracy, accuracy(first).estimate, condition.between_seeds
        lost = float((first & ~seeds).sum() / len(seeds))
        gained = float((~first & seeds).sum() / len(seeds))
        could_find = detectable(difference)
        drop, macro = drop_row(seeds_drop(first, seeds, cluster), int(first.sum())), None
        if together.task is not None and len(together.task_names) > 1:
            macro = seeds_macro_difference(first, seeds, together.task, cluster, margin=margin)
    row: Row = {
        "condition": name,
        "benchmark": baseline.title,
        "seeds": [run.seed for run in runs if run.seed is not None],
        "edges": runs[0].edges_share,
        "baseline_accuracy": before,
        "accuracy": at.estimate,
        "low": at.low,
        "high": at.high,
        "between_seeds": spread,
        "lost": lost,
        "gained": gained,
        "difference": difference.estimate,
        "difference_low": difference.low,
        "difference_high": difference.high,
        **drop,
        "p": test.p_value,
        "n": n,
        "of": baseline.total,
    }
    return _Condition(
        name, runs, row, difference, alone, macro, _notes(together, failed), could_find
    )


def _notes(together: PairedRuns, failed: int) -> list[str]:
    """What `mapflow compare` says, too: questions that are left out, and few videos."""
    notes = []
    if failed:
        notes.append(
            f"{count(failed, 'question')} could not be asked in one run or another and"
            f" {'is' if failed == 1 else 'are'} left out."
        )
    if any(together.left_out):
        named = zip(together.names, together.left_out, strict=True)
        notes.append(
            f"only {count(together.n, 'question')} that all its runs answered"
            f" {'is' if together.n == 1 else 'are'} compared; left out:"
            f" {' and '.join(f'{n:,} of {name}' for name, n in named if n)}."
        )
    if together.clustered and together.n_clusters < FEW_CLUSTERS:
        notes.append(few_videos(together.n_clusters))
    return notes


_COLUMNS: tuple[Column[Row], ...] = (
    Column("condition", lambda r: r["condition"], right=False),
    Column("seeds", lambda r: str(len(r["seeds"])) if r["seeds"] else "–"),
    Column("edges %", lambda r: percent(r["edges"])),
    Column(
        "accuracy [95 % CI]",
        lambda r: f"{percent(r['accuracy'])} [{percent(r['low'])}–{percent(r['high'])}]",
    ),
    Column("spread", lambda r: percent(r["between_seeds"])),
    Column("lost", lambda r: f"{r['lost']:,.4g}"),
    Column("gained", lambda r: f"{r['gained']:,.4g}"),
    Column("difference", lambda r: points(r["difference"])),
    Column("95 % CI", lambda r: f"{points(r['difference_low'])}…{points(r['difference_high'])}"),
    Column("drop among right", drop_text),
    Column("p", lambda r: p_text(r["p"], "")),
    Column("p (Holm)", lambda r: p_text(r["p_holm"], "")),
    Column("verdict", lambda r: r["verdict"], right=False),
    Column("n", lambda r: of_all(r["n"], r["of"])),
)
_MORE_COLUMNS: tuple[Column[Row], ...] = (
    Column("benchmark", lambda r: r["benchmark"], right=False),
    Column("baseline accuracy", lambda r: percent(r["baseline_accuracy"])),
)
_COMPACT = (
    "condition", "seeds", "edges %", "accuracy [95 % CI]", "difference", "95 % CI", "p (Holm)",
    "verdict",
)  # fmt: skip

"""A grid of runs against one baseline: several seeds of an intervention are one condition.

A condition with one run is compared like any other run. A condition with several seeds is compared
by its mean over seeds, and its interval includes the variance between seeds. All p-values and
verdicts are corrected as one family (Holm).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations, product
from typing import Any

import numpy as np

from mapflow.results.contract.errors import MapflowError
from mapflow.results.runs.provenance import disagreements, provenance
from mapflow.results.runs.run import Run, incomplete_note
from mapflow.results.statistics import (
    Interval,
    NonInferiority,
    PairedRuns,
    accuracy,
    claim,
    detectable,
    judge,
    non_inferiority,
    points,
    seed_condition,
)
from mapflow.results.tables.comparison import (
    DROP_NOTE,
    compare_with_baseline,
    drop_text,
    drop_values,
    p_text,
    paired,
)
from mapflow.results.tables.formats import Column, Row, Table
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


def ablation_table(
    baseline: Run, treatments: Sequence[Run], *, margin: float = 0.02, intersect: bool = False
) -> Table:
    """One row per condition among `treatments`, which share the baseline's model and benchmark.

    Raises MapflowError without a treatment, if two runs have the same condition and seed, and
    for input that the comparison refuses.
    """
    if not treatments:
        raise MapflowError(
            f"only {baseline.intervention!r} was run on {baseline.title}: nothing to compare it"
            " with"
        )
    conditions: dict[str, list[Run]] = {}
    for run in treatments:
        conditions.setdefault(condition_of(run), []).append(run)
    for name, runs in conditions.items():
        seeds = [run.seed for run in runs]
        if len(set(seeds)) < len(seeds):
            twice = max(seeds, key=seeds.count)
            said = f"condition {name!r}" if twice is None else f"seed {twice} of condition {name!r}"
            raise MapflowError(
                f"{said} is there more than once; name folders of one model, without repeated runs"
            )
    found = [_row(baseline, name, runs, margin, intersect) for name, runs in conditions.items()]
    p_values, claims = judge(
        [difference.estimate for _, difference, _ in found],
        [row["p"] for row, *_ in found],
        [alone for *_, alone in found],
    )
    rows: list[Row] = []
    sentences: list[str] = []
    for (row, difference, _), p, verdict in zip(found, p_values, claims, strict=True):
        rows.append(
            {
                **row,
                "p_holm": p,
                "verdict": verdict.verdict,
                "p_non_inferior": verdict.p_value,
                "p_non_inferior_holm": verdict.p_holm,
                "family": verdict.family,
            }
        )
        about = f"{baseline.intervention} on {baseline.title}"
        sentences.append(f"{claim(row['condition'], about, difference, p, verdict)}.")
        if verdict.verdict == "inconclusive":
            sentences[-1] += f" {detectable(difference)}"
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
    corrected = (
        f"p (Holm) and verdicts are corrected for the family of all {len(rows)} conditions"
        if len(rows) > 1
        else "p (Holm) and verdict are those of the one condition: nothing is corrected"
    )
    notes = [
        f"Baseline: {baseline.intervention} ({baseline.model}),"
        f" {percent(rows[0]['baseline_accuracy'])} %.",
        *sentences,
        *(
            f"{name}: two seeds have one degree of freedom between them, so the interval is wide"
            " wherever they differ; five seeds show far more."
            for name, runs in conditions.items()
            if len(runs) == 2
        ),
        "Differences to the baseline in points; several seeds are one condition: their mean, with"
        " the variance between"
        " seeds in the interval; spread is the standard deviation of the seeds' accuracies.",
        f"Margin {margin * 100:g} point{'s' * (margin != 0.01)}; {corrected}.",
        DROP_NOTE,
        *incomplete_note([baseline, *treatments]),
        *warnings,
    ]
    title = f"Ablation on {baseline.title}"
    return Table(title, _COLUMNS, rows, notes, provenance([baseline, *treatments]))


def _row(
    baseline: Run, name: str, runs: Sequence[Run], margin: float, intersect: bool
) -> tuple[Row, Interval, NonInferiority]:
    """The row without what its family decides, the difference, and the verdict alone."""
    if len(runs) == 1:
        (one,) = compare_with_baseline(
            baseline, runs, margin=margin, intersect=intersect, names=(baseline.intervention, name)
        )
        found, drop = one.comparison, drop_values(one.together)
        difference, test, n = found.difference, found.test, found.n
        alone = found.non_inferiority
        at, before, spread = found.treatment_accuracy, found.baseline_accuracy.estimate, None
        lost, gained = found.cells.lost, found.cells.gained
    else:
        names = [baseline.intervention, *(run.intervention for run in runs)]
        together = paired([baseline, *runs], names, intersect)
        cluster = together.cluster if together.clustered else None
        seeds = together.correct[1:]
        condition = seed_condition(together.correct[0], seeds, cluster)
        difference, test, n = condition.difference, condition.test, together.n
        alone = non_inferiority(condition.counted, margin)
        at, before, spread = (
            condition.accuracy,
            accuracy(together.correct[0]).estimate,
            condition.between_seeds,
        )
        lost = float((together.correct[0] & ~seeds).sum() / len(seeds))
        gained = float((~together.correct[0] & seeds).sum() / len(seeds))
        drop = _seeds_drop(together)
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
    return row, difference, alone


def _seeds_drop(together: PairedRuns) -> Row:
    """`drop_values` of several seeds as one condition: the baseline's right questions alone.

    Without an interval if fewer than two videos are left.
    """
    right = together.correct[0]
    seeds, n_right = together.correct[1:, right], int(right.sum())
    values: dict[str, Any] = {"n_right": n_right, "drop": None, "drop_low": None, "drop_high": None}
    if not n_right:
        return values
    values["drop"] = float(seeds.mean()) - 1
    cluster = together.cluster[right] if together.clustered else None
    try:
        found = seed_condition(np.ones(n_right, dtype=bool), seeds, cluster).difference
    except MapflowError:
        return values
    return {**values, "drop_low": found.low, "drop_high": found.high}


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

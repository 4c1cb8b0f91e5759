"""A grid of runs against one baseline: several seeds of an intervention are one condition.

A condition with one run is compared like any other run. A condition with several seeds is compared
by its mean over seeds, and its interval includes the variance between seeds. All p-values are
corrected as one family (Holm).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from mapflow.results.contract.errors import MapflowError
from mapflow.results.runs.provenance import disagreements, provenance
from mapflow.results.runs.run import Run
from mapflow.results.statistics import PairedRuns, accuracy, holm, points, seed_condition
from mapflow.results.tables.comparison import (
    DROP_NOTE,
    compare_with_baseline,
    drop_text,
    drop_values,
    p_text,
    paired,
)
from mapflow.results.tables.formats import Column, Row, Table
from mapflow.results.tables.summary import percent


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
    rows = [_row(baseline, name, runs, margin, intersect) for name, runs in conditions.items()]
    p_values = holm(np.array([row["p"] for row in rows]))
    rows = [{**row, "p_holm": float(p)} for row, p in zip(rows, p_values, strict=True)]
    warnings = [
        f"{name}: {warning}"
        for name, runs in conditions.items()
        for warning in dict.fromkeys(w for run in runs for w in disagreements(baseline, run))
    ]
    notes = [
        f"Baseline: {baseline.intervention} ({baseline.model}),"
        f" {percent(rows[0]['baseline_accuracy'])} %.",
        "Differences to the baseline in points; several seeds are one condition: their mean, with"
        " the variance between"
        " seeds in the interval; spread is the standard deviation of the seeds' accuracies.",
        f"Margin {margin * 100:g} points; p (Holm) is corrected for {len(rows)} conditions.",
        DROP_NOTE,
        *warnings,
    ]
    title = f"Ablation on {baseline.title}"
    return Table(title, _COLUMNS, rows, notes, provenance([baseline, *treatments]))


def _row(baseline: Run, name: str, runs: Sequence[Run], margin: float, intersect: bool) -> Row:
    if len(runs) == 1:
        (one,) = compare_with_baseline(
            baseline, runs, margin=margin, intersect=intersect, names=(baseline.intervention, name)
        )
        found, drop = one.comparison, drop_values(one.together)
        difference, test, n = found.difference, found.test, found.n
        at, before, spread = found.treatment_accuracy, found.baseline_accuracy.estimate, None
        lost, gained = found.cells.lost, found.cells.gained
    else:
        names = [baseline.intervention, *(run.intervention for run in runs)]
        together = paired([baseline, *runs], names, intersect)
        cluster = together.cluster if together.clustered else None
        seeds = together.correct[1:]
        condition = seed_condition(together.correct[0], seeds, cluster)
        difference, test, n = condition.difference, condition.test, together.n
        at, before, spread = (
            condition.accuracy,
            accuracy(together.correct[0]).estimate,
            condition.between_seeds,
        )
        lost = float((together.correct[0] & ~seeds).sum() / len(seeds))
        gained = float((~together.correct[0] & seeds).sum() / len(seeds))
        drop = _seeds_drop(together)
    return {
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
        "verdict": _verdict(difference.low, difference.high, margin),
        "n": n,
    }


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


def _verdict(low: float, high: float, margin: float) -> str:
    """The verdict of a non-inferiority test, read from the interval of the difference."""
    return "non-inferior" if low > -margin else "inferior" if high < -margin else "inconclusive"


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
    Column("n", lambda r: f"{r['n']:,}"),
)

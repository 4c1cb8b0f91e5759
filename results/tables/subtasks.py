"""Comparisons by subtask, one row per treatment and subtask; leaderboards' subtask columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mapflow.results.runs.provenance import provenance
from mapflow.results.statistics import count, holm, points
from mapflow.results.tables import comparison
from mapflow.results.tables.cells import drop_values, p_text
from mapflow.results.tables.comparison import ComparedPair, by_benchmark, titled
from mapflow.results.tables.formats import Column, Row, Table, choose
from mapflow.results.tables.summary import percent, short_names


def subtask_tables(pairs: Sequence[ComparedPair]) -> list[Table]:
    """One `subtask_table` per benchmark."""
    return titled([subtask_table(own) for own in by_benchmark(pairs).values()], pairs)


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
        }
        for one in pairs
        if one.comparison.strata
        for stratum in one.comparison.strata.differences
    ]
    corrected = holm(np.array([row["p"] for row in rows], dtype=float))
    rows = [{**row, "p_holm": float(p)} for row, p in zip(rows, corrected, strict=True)]
    notes = [
        f"{one.comparison.treatment} on {one.treatment.title}: macro average"
        f" {points(macro.interval.estimate)} points,"
        f" 95 % CI {points(macro.interval.low)}…{points(macro.interval.high)}, p"
        f" {p_text(macro.test.p_value)}, {macro.non_inferiority.verdict};"
        " do subtasks differ in the difference? p"
        f" {p_text(one.comparison.strata.homogeneity.p_value)}."
        for one in pairs
        if one.comparison.strata and (macro := one.comparison.strata.macro)
    ]
    if rows:
        notes.append(
            f"p (Holm) is corrected for the family of all {count(len(rows), 'row')} of this table."
        )
    runs = [run for one in pairs for run in (one.baseline, one.treatment)]
    columns = choose(
        (*comparison.COLUMNS, _SUBTASK),
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
    return Table(
        "By subtask",
        columns,
        rows,
        notes,
        provenance(runs),
        kind="subtasks",
        more=[column for column in comparison.COLUMNS if column.head in ("baseline", "benchmark")],
        compact=(
            "treatment",
            "baseline",
            "benchmark",
            "subtask",
            "difference",
            "95 % CI",
            "p (Holm)",
        ),
    )


_SUBTASK: Column[Row] = Column("subtask", lambda r: r["subtask"], right=False)


def spread_subtasks(rows: Sequence[Row]) -> list[Row]:
    """The rows with one value per subtask instead of `subtasks`."""
    names = sorted({name for row in rows for name in row.get("subtasks", ())})
    heads = [f"accuracy {short}" for short in short_names(names)] if len(names) > 1 else []
    found = []
    for row in rows:
        own = {name: value for name, value in row.items() if name != "subtasks"}
        by_task = row.get("subtasks") or {}
        values = [by_task.get(name) for name in names] if by_task else []
        found.append(own | dict(zip(heads, values, strict=False)))
    return found


def accuracy_columns(rows: Sequence[Row]) -> list[Column[Row]]:
    """One column per subtask of `spread_subtasks`."""
    names = dict.fromkeys(name for row in rows for name in row if name.startswith("accuracy "))
    return [
        Column(name.partition(" ")[2], lambda r, name=name: percent(r.get(name))) for name in names
    ]

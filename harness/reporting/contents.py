"""The contents of a report: tables, policy diagrams, sweeps and all questions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mapflow.harness.cli.chosen_runs import with_baseline
from mapflow.harness.reporting.policies import policy_diagrams
from mapflow.harness.reporting.viewer import viewer_data
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.files import read_json
from mapflow.results.figures import PolicyDiagram, RoutePanel, route_panels
from mapflow.results.records.base import by_benchmark
from mapflow.results.records.sweep import SweepRecord
from mapflow.results.report import ReportContents, SweepFigure
from mapflow.results.runs.folder import MANIFEST, reported_records
from mapflow.results.runs.model_names import model_name
from mapflow.results.runs.provenance import manifest_lines
from mapflow.results.runs.run import Run, open_records
from mapflow.results.tables.ablation import ablation_table
from mapflow.results.tables.comparison import (
    all_differ,
    compare_groups,
    comparison_table,
)
from mapflow.results.tables.formats import Column, Row, Table
from mapflow.results.tables.leaderboard import leaderboards
from mapflow.results.tables.subtasks import subtask_table
from mapflow.results.tables.sweeps import drop_text
from mapflow.tasks.registry import benchmark_titles


def report_contents(
    runs: Sequence[Run],
    sweeps: Sequence[Path] = (),
    *,
    title: str,
    baseline: str | None,
    margin: float,
    intersect: bool,
    data: Path | None,
    n_pictured: int,
) -> ReportContents:
    """The contents of a report about `runs`. Runs that cannot be compared are named in a warning.

    sweeps: folders of `mapflow sweep`.
    baseline: intervention that the others are compared with; default: the first one.
    data, n_pictured: as in `viewer_data`.

    Raises MapflowError for a baseline that no run has.
    """
    groups = [group for group in with_baseline(runs, baseline) if len(group) > 1]
    tables: list[Table] = []
    warnings: list[str] = []
    for group in groups:
        try:
            tables += _compared(group, margin, intersect)
        except MapflowError as error:
            warnings.append(f"{group[0].title} is not compared: {error}.")
    sources = list(dict.fromkeys(run.source for run in runs))
    boards = leaderboards(runs)
    return ReportContents(
        title=title,
        leaderboards=boards,
        viewer=viewer_data(runs, data, n_pictured),
        comparisons=tables,
        warnings=[*warnings, *_table_warnings([*boards, *tables])],
        policies=[diagram for source in sources for diagram in _policies(source)],
        sweeps=[figure for source in sweeps for figure in _sweep_figures(source)],
    )


def _compared(group: Sequence[Run], margin: float, intersect: bool) -> list[Table]:
    pairs = compare_groups([group], margin=margin, intersect=intersect)
    together = [all_differ(group, intersect)] if len(group) > 2 else []
    tables = [comparison_table(pairs, together)]
    if (subtasks := subtask_table(pairs)).rows:
        tables.append(subtasks)
    if sum(run.seed is not None for run in group) > 1 and len({run.source for run in group}) == 1:
        tables.append(ablation_table(group[0], group[1:], margin=margin, intersect=intersect))
    return tables


def _table_warnings(tables: Sequence[Table]) -> list[str]:
    """The warnings among the notes of the tables, which the page repeats at its top."""
    return list(
        dict.fromkeys(note for table in tables for note in table.notes if "Warning:" in note)
    )


def _policies(source: Path) -> list[PolicyDiagram]:
    manifest, records = open_records(source)
    known = (
        record
        for record in records
        if record.error is None and record.edges_total and record.frame_indices
    )
    return policy_diagrams(manifest, next(known, None))


def _drop_table(curves: Sequence[RoutePanel]) -> Table:
    """Accuracy drops in points: one row per layer, one column per route."""
    heads = {one.route: f"{one.route} (n = {one.n_right})" for one in curves}
    cells = {one.route: [drop_text(drop) for drop in one.drops] for one in curves}
    depth = max(map(len, cells.values()), default=0)
    rows = [
        {"layer": str(layer + 1), **{route: own[layer] for route, own in cells.items() if own}}
        for layer in range(depth)
    ]

    def shown(name: str, row: Row) -> str:
        return row.get(name, "–")

    columns = [
        Column(head, partial(shown, name)) for name, head in {"layer": "layer", **heads}.items()
    ]
    return Table("Accuracy drop", columns, rows)


def _sweep_figures(source: Path) -> list[SweepFigure]:
    """One figure per benchmark."""
    manifest = read_json(source / MANIFEST) if (source / MANIFEST).is_file() else {}
    identity = manifest.get("identity") or {}
    window = ", ".join(
        f"{name} {identity[name]}" for name in ("style", "window", "samples") if identity.get(name)
    )
    model = model_name(manifest, source.name)
    caption, titles = f"{model}: {window}" if window else model, benchmark_titles()
    groups = by_benchmark(reported_records(source, SweepRecord))
    figures = []
    for benchmark, records in groups.items():
        curves = route_panels(records)
        figures.append(
            SweepFigure(
                f"{caption}, {titles.get(benchmark, benchmark)}" if len(groups) > 1 else caption,
                curves,
                _drop_table(curves),
                [(source.name, "; ".join(manifest_lines(manifest)))],
            )
        )
    return figures

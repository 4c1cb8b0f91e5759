"""The contents of a report: tables, policy diagrams, sweeps and all questions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mapflow.harness.cli.chosen_runs import with_baseline
from mapflow.harness.reporting.policies import policy_diagrams
from mapflow.harness.reporting.viewer import viewer_data
from mapflow.results.contract.errors import MapflowError
from mapflow.results.figures import PolicyDiagram, RoutePanel, route_panels
from mapflow.results.records.base import by_benchmark
from mapflow.results.records.sweep import SweepRecord
from mapflow.results.report import ReportContents, SweepFigure
from mapflow.results.runs.folder import reported_records
from mapflow.results.runs.manifest import read_manifest
from mapflow.results.runs.model_names import model_name
from mapflow.results.runs.provenance import manifest_lines
from mapflow.results.runs.run import Run, open_records
from mapflow.results.tables.ablation import ablation_tables
from mapflow.results.tables.comparison import (
    ComparedPair,
    all_differ,
    compare_with_baseline,
    comparison_table,
    corrected,
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
    warnings: list[str] = []
    compared: list[tuple[Sequence[Run], list[ComparedPair]]] = []
    for group in groups:
        try:
            pairs = compare_with_baseline(group[0], group[1:], margin=margin, intersect=intersect)
            compared.append((group, pairs))
        except MapflowError as error:
            warnings.append(f"{group[0].title} is not compared: {error}.")
    ablations: list[Table | None] = [None] * len(compared)
    try:
        ablations = _ablations([group for group, _ in compared], margin, intersect)
    except MapflowError as error:
        warnings.append(f"Seeds are not shown as one condition: {error}.")
    tables = _comparisons(compared, ablations, intersect)
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


def _ablations(
    groups: Sequence[Sequence[Run]], margin: float, intersect: bool
) -> list[Table | None]:
    """The ablation of each group that has several seeds, all from one folder; else None."""
    seeds = [
        sum(run.seed is not None for run in group) > 1 and len({run.source for run in group}) == 1
        for group in groups
    ]
    own = [group for group, several in zip(groups, seeds, strict=True) if several]
    tables = iter(ablation_tables(own, margin=margin, intersect=intersect))
    return [next(tables) if several else None for several in seeds]


def _comparisons(
    compared: Sequence[tuple[Sequence[Run], Sequence[ComparedPair]]],
    ablations: Sequence[Table | None],
    intersect: bool,
) -> list[Table]:
    """The tables of every benchmark; one family over all of them, as in `mapflow compare`."""
    judged = iter(corrected([pair for _, pairs in compared for pair in pairs]))
    tables: list[Table] = []
    for (group, pairs), ablation in zip(compared, ablations, strict=True):
        own = [next(judged) for _ in pairs]
        tables.append(
            comparison_table(own, [all_differ(group, intersect)] if len(group) > 2 else [])
        )
        if (subtasks := subtask_table(own)).rows:
            tables.append(subtasks)
        if ablation:
            tables.append(ablation)
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
    manifest = read_manifest(source)
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

"""A report's contents: the tables of `leaderboard` and `compare`, policies, sweep figures, every question."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from pathlib import Path

from mapflow.harness.chosen_runs import with_baseline
from mapflow.harness.reporting.policies import policy_diagrams
from mapflow.harness.reporting.viewer import viewer_data
from mapflow.results.ablation import ablation_table
from mapflow.results.comparison_tables import all_differ, compare_groups, comparison_table, subtask_table
from mapflow.results.errors import MapflowError
from mapflow.results.formats import Table
from mapflow.results.leaderboard import leaderboard
from mapflow.results.report import Figure, PolicyDiagram, ReportContents
from mapflow.results.run import Run, open_records

IMAGES = {".svg": "image/svg+xml", ".png": "image/png"}


def report_contents(
    runs: Sequence[Run],
    *,
    title: str,
    baseline: str | None,
    margin: float,
    intersect: bool,
    data: Path | None,
    n_pictured: int,
) -> ReportContents:
    """Of several folders the first one's baseline is every run's. What cannot be compared is a warning, not an end.

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
    board = leaderboard(runs)
    return ReportContents(
        title=title,
        leaderboard=board,
        viewer=viewer_data(runs, data, n_pictured),
        comparisons=tables,
        warnings=[*warnings, *_said([board, *tables])],
        policies=[diagram for source in sources for diagram in _policies(source)],
        figures=[figure for source in sources for figure in _sweep_figures(source)],
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


def _said(tables: Sequence[Table]) -> list[str]:
    """Warnings of the tables once more, at the top of the page."""
    return list(dict.fromkeys(note for table in tables for note in table.notes if "Warning:" in note))


def _policies(source: Path) -> list[PolicyDiagram]:
    manifest, records = open_records(source)
    known = (
        record for record in records if record.error is None and record.edges_total and record.frame_indices
    )
    return policy_diagrams(manifest, next(known, None))


def _sweep_figures(source: Path) -> Iterator[Figure]:
    """Figures that `mapflow sweep` has left in the folder; none where there was no sweep."""
    for path in sorted(source.rglob("sweep*")) if source.is_dir() else []:
        if path.is_file() and path.suffix in IMAGES:
            text = base64.b64encode(path.read_bytes()).decode("ascii")
            yield Figure(path.stem.replace("_", " "), f"data:{IMAGES[path.suffix]};base64,{text}")

"""The contents of a report: what runs show in short, tables, policies, analyses, all questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mapflow.harness.cli.chosen_runs import with_baseline
from mapflow.harness.reporting.analyses import analysis_sections
from mapflow.harness.reporting.in_short import in_short
from mapflow.harness.reporting.policies import policy_diagrams
from mapflow.harness.reporting.viewer import column_names, key, viewer_data
from mapflow.model_adapters.progress import Step, no_progress
from mapflow.results.contract.errors import MapflowError
from mapflow.results.figures import PolicyDiagram
from mapflow.results.report import ReportContents
from mapflow.results.runs.run import Run, open_records
from mapflow.results.tables.ablation import ablation_tables
from mapflow.results.tables.comparison import (
    ComparedPair,
    all_differ,
    compare_with_baseline,
    comparison_table,
    corrected,
)
from mapflow.results.tables.formats import Table
from mapflow.results.tables.leaderboard import leaderboards
from mapflow.results.tables.subtasks import subtask_table


def report_contents(
    runs: Sequence[Run],
    analyses: Sequence[tuple[str, Path]] = (),
    *,
    title: str,
    baseline: str | None,
    margin: float,
    intersect: bool,
    data: Path | None,
    n_pictured: int,
    step: Step = no_progress,
) -> ReportContents:
    """The contents of a report about `runs`. Runs that cannot be compared are named in a warning.

    analyses: (name of the analysis, its folder).
    baseline: intervention that the others are compared with; default: the first one.
    data, n_pictured: as in `viewer_data`.
    step: told about every comparison, folder, and question that got its frames.

    Raises MapflowError for a baseline that no run has, and for a folder without results.
    """
    names = column_names(runs)
    groups = with_baseline(runs, baseline)
    warnings: list[str] = []
    compared: list[tuple[Sequence[Run], list[ComparedPair]]] = []
    for group in groups:
        if len(group) < 2:
            continue
        own = [names[key(run)] for run in group]
        step("comparisons", 0)
        try:
            pairs = compare_with_baseline(
                group[0], group[1:], margin=margin, intersect=intersect, names=own
            )
            compared.append((group, pairs))
        except MapflowError as error:
            warnings.append(f"{group[0].title} is not compared: {error}.")
        step("tables", len(group) - 1)
    judged = _judged(compared)
    ablations: list[Table | None] = [None] * len(judged)
    try:
        ablations = _ablations([group for group, _ in judged], margin, intersect)
    except MapflowError as error:
        warnings.append(f"Seeds are not shown as one condition: {error}.")
    tables = _comparisons(judged, ablations, intersect)
    sources = list(dict.fromkeys(run.source for run in runs))
    boards = leaderboards(runs)
    pairs = [pair for _, own in judged for pair in own]
    return ReportContents(
        title=title,
        leaderboards=boards,
        viewer=viewer_data(runs, data, n_pictured, step),
        in_short=in_short(groups, pairs, names, margin, len(pairs)),
        comparisons=tables,
        warnings=[*warnings, *_table_warnings([*boards, *tables])],
        policies=[diagram for source in sources for diagram in _policies(source)],
        analyses=list(analysis_sections(analyses, step)),
    )


def _judged(
    compared: Sequence[tuple[Sequence[Run], Sequence[ComparedPair]]],
) -> list[tuple[Sequence[Run], list[ComparedPair]]]:
    """The same with all pairs corrected as one family over all benchmarks, as `mapflow compare`."""
    found = iter(corrected([pair for _, pairs in compared for pair in pairs]))
    return [(group, [next(found) for _ in pairs]) for group, pairs in compared]


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
    judged: Sequence[tuple[Sequence[Run], Sequence[ComparedPair]]],
    ablations: Sequence[Table | None],
    intersect: bool,
) -> list[Table]:
    """The tables of every benchmark."""
    tables: list[Table] = []
    for (group, pairs), ablation in zip(judged, ablations, strict=True):
        own = [
            comparison_table(pairs, [all_differ(group, intersect)] if len(group) > 2 else []),
            subtask_table(pairs),
        ]
        title = f": {group[0].title}" if len(judged) > 1 else ""
        tables += [replace(table, title=table.title + title) for table in own if table.rows]
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

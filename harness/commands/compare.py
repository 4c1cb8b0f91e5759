"""`mapflow compare`: differences between runs, as a table and one sentence per comparison."""

from __future__ import annotations

import argparse

from mapflow.harness.cli.arguments import chosen_margin
from mapflow.harness.cli.table_output import add_comparison, add_output, write_tables


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="folder of a run, folder:intervention, or logs of lmms-eval, lm-evaluation-harness"
        " or Inspect; the first is the baseline. One folder alone: its interventions are compared",
    )
    parser.add_argument(
        "--baseline", metavar="INTERVENTION", help="within one folder (default: its first)"
    )
    add_comparison(parser)
    parser.add_argument("--subtasks", action="store_true", help="also one table per subtask")
    add_output(parser)


def run(options: argparse.Namespace) -> int:
    from mapflow.harness.cli.chosen_runs import compared_runs
    from mapflow.results.tables.comparison import (
        all_differ,
        compare_groups,
        comparison_tables,
    )
    from mapflow.results.tables.subtasks import subtask_tables

    groups, left_out = compared_runs(options.runs, options.baseline, intersect=options.intersect)
    pairs = compare_groups(groups, margin=chosen_margin(options), intersect=options.intersect)
    together = {
        group[0].benchmark: all_differ(group, options.intersect)
        for group in groups
        if len(group) > 2
    }
    tables = comparison_tables(pairs, together, left_out)
    if options.subtasks:
        tables += subtask_tables(pairs)
    write_tables(tables, options)
    return 0

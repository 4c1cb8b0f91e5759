"""`mapflow compare`: differences between runs, as a table and one sentence per comparison."""

from __future__ import annotations

import argparse

from mapflow.harness.cli.arguments import chosen_margin
from mapflow.harness.cli.table_output import (
    add_comparison,
    add_output,
    check_output,
    write_tables,
)
from mapflow.model_adapters.progress import steps
from mapflow.results.contract.errors import MapflowError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="folder of a run, folder:intervention, or logs of lmms-eval, lm-evaluation-harness"
        " or Inspect; the first is the baseline. One folder alone: its interventions are compared",
    )
    parser.add_argument(
        "--baseline",
        metavar="INTERVENTION",
        help="within one folder, or of --interaction (default: the first)",
    )
    add_comparison(parser)
    parser.add_argument("--subtasks", action="store_true", help="also one table per subtask")
    parser.add_argument(
        "--interaction",
        action="store_true",
        help="runs are of different models: does an intervention cost one of them more? Differences"
        " of differences, for every intervention that the first and another one share",
    )
    add_output(parser)


def run(options: argparse.Namespace) -> int:
    check_output(options)
    if options.interaction:
        return _interactions(options)
    from mapflow.harness.cli.chosen_runs import compared_runs

    margin = chosen_margin(options)
    groups, left_out = compared_runs(options.runs, options.baseline, intersect=options.intersect)

    from mapflow.results.tables.comparison import (
        all_differ,
        compare_groups,
        comparison_tables,
    )
    from mapflow.results.tables.subtasks import subtask_tables

    with steps("comparing"):
        pairs = compare_groups(groups, margin=margin, intersect=options.intersect)
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


def _interactions(options: argparse.Namespace) -> int:
    from mapflow.harness.cli.chosen_runs import all_runs

    if options.subtasks:
        raise MapflowError("--interaction has no table by subtask: leave out --subtasks")
    chosen_margin(options)
    models = [all_runs([word]) for word in options.runs]

    from mapflow.results.tables.interactions import interaction_tables

    with steps("comparing"):
        tables = interaction_tables(models, options.baseline, intersect=options.intersect)
    write_tables(tables, options)
    return 0

"""`mapflow leaderboard`: runs side by side; statistically tied runs share a letter."""

from __future__ import annotations

import argparse

from mapflow.harness.cli.table_output import add_output, check_output, write_tables
from mapflow.model_adapters.progress import steps


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="folders of runs, folder:intervention, or logs of lmms-eval, lm-evaluation-harness or"
        " Inspect",
    )
    parser.add_argument(
        "--rank-by",
        choices=("micro", "macro"),
        default="micro",
        help="order and test runs by the average over questions (micro, default) or over subtasks",
    )
    parser.add_argument(
        "--each-seed",
        action="store_true",
        help="one row per seed of a random intervention, not one for all with their spread",
    )
    parser.add_argument("--subtasks", action="store_true", help="one column per subtask")
    add_output(parser)


def run(options: argparse.Namespace) -> int:
    from mapflow.harness.cli.chosen_runs import all_runs

    check_output(options)
    runs = all_runs(options.runs)

    from mapflow.results.tables.leaderboard import leaderboards, with_subtasks

    with steps("ranking"):
        tables = leaderboards(runs, rank_by=options.rank_by, each_seed=options.each_seed)
    if options.subtasks:
        tables = [with_subtasks(table) for table in tables]
    write_tables(tables, options)
    return 0

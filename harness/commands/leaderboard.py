"""`mapflow leaderboard`: runs side by side; statistically tied runs share a letter."""

from __future__ import annotations

import argparse

from mapflow.harness.cli.table_output import add_output, write_tables


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="folders of runs, folder:intervention, or logs of lmms-eval, lm-evaluation-harness or"
        " Inspect",
    )
    add_output(parser)


def run(options: argparse.Namespace) -> int:
    from mapflow.harness.cli.chosen_runs import all_runs
    from mapflow.results.tables.leaderboard import leaderboards

    write_tables(leaderboards(all_runs(options.runs)), options)
    return 0

"""`mapflow`: tables, checks and analyses. Subcommands are imported when they are asked for, so help is instant."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from types import ModuleType

from mapflow.harness.cli.interruption import Interrupted, interruptible
from mapflow.results.contract.errors import USAGE_ERROR, MapflowError

COMMANDS = {
    "explain": "what an intervention cuts: layers, edges, and by which paths video still reaches the answer",
    "verify": "certify a model's adapter: layout, masks, layers, batching, decoding; exit code 1 on a failure",
    "data": "a benchmark's files: check that they are there, complete and readable; unpack them",
    "compare": "do runs really differ? A table and one plain sentence a pair",
    "leaderboard": "runs side by side: accuracy with intervals, ties as ties, published rows beside ours",
    "ablate": "a grid of interventions × seeds × ratios against a baseline, with corrected p-values",
    "report": "one HTML page that needs no network: leaderboard, comparisons, policies, every question",
    "sweep": "knock out routes in a window around every layer: where does information flow?",
    "figure": "curves of a sweep, trace or lens with 95 % bands, as PNG, SVG and CSV",
    "discover": "which layers carry a model's pathways? Found on one half of the videos, scored on the other",
    "trace": "how probable the right and the wrong answers are after every layer, under any intervention",
    "lens": "which words video tokens look like in every layer, and how many are spatial or temporal",
    "attention": "how much rows look at video in every layer, under any intervention; drawn on the frames",
    "tasks-path": "the folder of mapflow's tasks, for plain lmms-eval's --include_path",
}
"""Subcommand → one-line help. Its module is harness/commands/<name>.py with `add_arguments` and `run`."""


def main(argv: Sequence[str] | None = None) -> int:
    """The subcommand's exit code; with one line on standard error, 2 for wrong usage, 130 and 143 when interrupted."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # see lmms_eval_command.main
    os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        "mapflow", description="Where does information flow in a VideoLLM?"
    )
    parser.add_argument("--version", action="version", version=version("mapflow"))
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        text = summary.replace("%", "%%")  # argparse fills in %-signs
        command = commands.add_parser(name, help=text, description=summary)
        if arguments[:1] == [name]:
            _module(name).add_arguments(command)
    options = parser.parse_args(arguments)
    try:
        with interruptible():
            return _module(options.command).run(options)
    except MapflowError as error:
        print(f"mapflow {options.command}: error: {error}", file=sys.stderr)
        return USAGE_ERROR
    except Interrupted as stop:
        print(f"\nmapflow {options.command}: {stop}", file=sys.stderr)
        return stop.exit_code


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"mapflow.harness.commands.{name.replace('-', '_')}")


if __name__ == "__main__":
    sys.exit(main())

"""`mapflow`: tables, checks and analyses.

Only the subcommand that runs is imported, so help is instant.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Protocol

from mapflow.harness.analyses.registry import ANALYSES
from mapflow.harness.cli.endings import Parser, run_command
from mapflow.harness.cli.logs import set_up_logs
from mapflow.results.contract.errors import MapflowError

COMMANDS = {
    "run": "the main job: benchmarks under interventions; the same command as lmms_eval",
    "explain": "what an intervention cuts: layers, edges, and the remaining paths from video to the"
    " answer",
    "verify": "verify a model's adapter on this machine: layout, masks, layers, batching, decoding;"
    " exit code 1 on a failure",
    "data": "a benchmark's files: check that they are complete and readable; unpack them",
    "compare": "do runs differ? A table and one sentence per comparison",
    "power": "what could runs have shown, and how many questions or videos a claim needs",
    "leaderboard": "runs side by side: accuracy with intervals, statistical ties, published results"
    " beside ours",
    "ablate": "a grid of interventions × seeds × ratios against a baseline, with corrected"
    " p-values",
    "report": "one HTML page that needs no network: leaderboard, comparisons, policies, every"
    " question",
    "export": "a run in the format of another tool: data frames, Every Eval Ever, the Hugging Face"
    " Hub, Inspect",
    **{name: entry.help for name, entry in ANALYSES.items()},
    "figure": "curves of an analysis with 95 % bands, as PNG, SVG and CSV",
    "tasks-path": "the folder of mapflow's tasks, for plain lmms-eval's --include_path",
}
"""Subcommand → one-line help. Analyses run by commands/analysis.py, others by commands/NAME.py."""


class Command(Protocol):
    """The interface of a module of harness/commands."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...
    def run(self, options: argparse.Namespace) -> int: ...


def main(argv: Sequence[str] | None = None) -> int:
    """The subcommand's exit code; `cli/endings.py` has the codes of errors and interruptions."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # see evaluation/lmms_eval.py
    os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["run"]:
        from mapflow.harness.evaluation.lmms_eval import main as lmms_eval

        return lmms_eval(arguments[1:], "mapflow run")
    known = arguments[:1] if arguments and arguments[0] in COMMANDS else []
    return run_command(
        " ".join(["mapflow", *known]),
        lambda: _run(arguments),
        arguments,
    )


def _run(arguments: list[str]) -> int:
    parser = Parser("mapflow", description="Where does information flow in a VideoLLM?")
    parser.add_argument("--version", action="version", version=version("mapflow"))
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        text = summary.replace("%", "%%")  # argparse fills in %-signs
        command = commands.add_parser(name, help=text, description=summary)
        if arguments[:1] == [name]:
            _command(name).add_arguments(command)
            command.add_argument(
                "--quiet", action="store_true", help="standard error: warnings and errors only"
            )
    if arguments and arguments[0].startswith("--model"):
        raise MapflowError(
            "name a command before the flags; the main job is `mapflow run --model …`"
        )
    options = parser.parse_args(arguments)
    set_up_logs(f"mapflow {options.command}", quiet=options.quiet)
    return _command(options.command).run(options)


def _command(name: str) -> Command:
    if name in ANALYSES:
        from mapflow.harness.commands.analysis import AnalysisCommand

        return AnalysisCommand(ANALYSES[name])
    module: Any = importlib.import_module(f"mapflow.harness.commands.{name.replace('-', '_')}")
    return module


if __name__ == "__main__":
    sys.exit(main())

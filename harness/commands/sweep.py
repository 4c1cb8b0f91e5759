"""`mapflow sweep`: where does information flow? Routes × layers × window styles, question by question.

mapflow sweep --routes vql-to-ql --output_path sweep/
torchrun --nproc_per_node 4 -m mapflow.harness.cli.main sweep …      # the same records, four times as fast
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from mapflow.harness.cli.arguments import add_subject_arguments, chosen_documents, chosen_model
from mapflow.results.contract.errors import MapflowError

STYLES = ("center", "inverse", "top-down", "bottom-up")
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--routes",
        action="append",
        metavar="A[,B…]",
        help="sets (cross-frame, vql-to-ql, question-and-options-to-last, vq-to-true-opt, paper) and routes such as"
        " video->stem; repeatable (default: vql-to-ql)",
    )
    parser.add_argument(
        "--window", type=int, default=9, metavar="K", help="layers a window covers (default: 9)"
    )
    parser.add_argument("--style", choices=STYLES, default="center", help="default: center")
    parser.add_argument(
        "--samples",
        choices=("correct", "wrong", "all"),
        default="all",
        help="questions that the plain run answers so (default: all)",
    )
    add_subject_arguments(parser)
    parser.add_argument(
        "--audit",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="run this share of windows again, naively, and compare",
    )
    parser.add_argument(
        "--memory-budget",
        metavar="BYTES",
        help="for windows in flight, e.g. 512M (default: 2G on a CPU, else 16G)",
    )
    parser.add_argument(
        "--output_path", required=True, metavar="DIR", help="records, manifest and summary"
    )


def run(options: argparse.Namespace) -> int:
    """Exit code: 0 done, 1 an audit failed, 2 wrong usage, 3 some questions could not be asked."""
    from mapflow.harness.analyses.route_sets import check_routes, parse_routes
    from mapflow.tasks.documents import to_question

    _check(options)
    budget = parse_bytes(options.memory_budget) if options.memory_budget else None
    routes = parse_routes(options.routes or ["vql-to-ql"])
    documents = chosen_documents(options)
    check_routes(routes, (to_question(doc, options.protocol) for doc in documents))

    from mapflow.harness.analyses.shard import Shard
    from mapflow.harness.analyses.sweep import Sweep
    from mapflow.harness.analyses.sweep_run import run_sweep

    model = chosen_model(options)
    sweep = Sweep(
        routes=tuple(routes),
        style=options.style,
        size=options.window,
        samples=options.samples,
        audit=options.audit,
        memory_budget=budget or (2 if model.decoder.device.type == "cpu" else 16) * UNITS["G"],
    )
    shard = Shard.from_environment()
    return run_sweep(
        options.model, model, documents, sweep, options.protocol, Path(options.output_path), shard
    )


def _check(options: argparse.Namespace) -> None:
    """Raises MapflowError for numbers that make no sense."""
    if options.window < 1:
        raise MapflowError(f"--window {options.window} must be at least 1 layer")
    if not 0 <= options.audit <= 1:
        raise MapflowError(f"--audit {options.audit:g} is outside 0..1")


def parse_bytes(text: str) -> int:
    """From "512M", "2GiB" or plain bytes. Raises MapflowError on anything else."""
    match = re.fullmatch(r"(\d{1,15}(?:\.\d+)?)\s*([KMG]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    size = int(float(match[1]) * UNITS[match[2].upper()]) if match else 0
    if size < 1:
        raise MapflowError(f"--memory-budget {text!r} is not a size such as 512M, 2G or 1000000")
    return size

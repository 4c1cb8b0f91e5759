"""`mapflow discover`: which layers carry a model's pathways? Swept on one half of the videos, scored on the other.

mapflow discover --task mapflow_tvbench_action_antonym --pretrained DIR --output_path found/
mapflow discover --bin 1 --window 1 --output_path found/         # shallow models: layer by layer
lmms_eval … --intervention found/discovered.yaml
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from mapflow.harness.cli.arguments import add_subject_arguments, chosen_documents, chosen_model
from mapflow.harness.commands.sweep import UNITS, parse_bytes
from mapflow.results.contract.errors import MapflowError

if TYPE_CHECKING:
    from mapflow.harness.analyses.discovery.run import Discovery

SENSITIVITY = (-2.0, -5.0, -10.0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--bin", type=int, default=5, metavar="K", help="layers of a bin (default: 5)"
    )
    parser.add_argument(
        "--window", type=int, default=9, metavar="K", help="layers cut at once (default: 9)"
    )
    parser.add_argument(
        "--threshold",
        type=float,
        default=-5.0,
        metavar="PERCENT",
        help="mean relative change below which a bin counts, for the marginal rule per five layers (default: -5; -2, -5 and"
        " -10 are shown beside it)",
    )
    parser.add_argument(
        "--margin",
        type=float,
        default=2.0,
        metavar="POINTS",
        help="how much worse is still as good (default: 2)",
    )
    add_subject_arguments(parser)
    parser.add_argument(
        "--memory-budget",
        metavar="BYTES",
        help="for windows in flight, e.g. 512M (default: 2G on a CPU, else 16G)",
    )
    parser.add_argument(
        "--output_path",
        required=True,
        metavar="DIR",
        help="sweeps, scores, discovered.yaml, RULE/pathways.yaml",
    )


def run(options: argparse.Namespace) -> int:
    """Exit code: 0 done, 2 wrong usage, 3 some questions could not be asked."""
    _check(options)
    documents = chosen_documents(options)

    from mapflow.harness.analyses.discovery.output import describe, write_policies
    from mapflow.harness.analyses.discovery.run import run_discovery

    model = chosen_model(options)
    folder = Path(options.output_path)
    budget = parse_bytes(options.memory_budget) if options.memory_budget else None
    what = _discovery(
        options, budget or (2 if model.decoder.device.type == "cpu" else 16) * UNITS["G"]
    )
    scored, code = run_discovery(options.model, model, documents, options.protocol, what, folder)
    print(describe(scored))
    for line in write_policies(
        scored, options.threshold, model.name, model.decoder.n_layers, folder
    ):
        print(line)
    return code


def _discovery(options: argparse.Namespace, memory_budget: int) -> Discovery:
    from mapflow.harness.analyses.discovery.run import Discovery

    thresholds = tuple(dict.fromkeys([options.threshold, *SENSITIVITY]))
    return Discovery(options.window, options.bin, thresholds, options.margin / 100, memory_budget)


def _check(options: argparse.Namespace) -> None:
    """Raises MapflowError for numbers that make no sense, before anything is loaded."""
    for name in ("bin", "window", "limit"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise MapflowError(f"--{name} {value} must be at least 1")
    if not -100 < options.threshold < 0:
        raise MapflowError(
            f"--threshold {options.threshold:g} must lie between -100 and 0 percent, e.g. -5"
        )
    if not 0 < options.margin < 100:
        raise MapflowError(
            f"--margin {options.margin:g} must lie between 0 and 100 points, e.g. --margin 2"
        )
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise MapflowError(
            "discover runs in one process; its sweeps can be shared out with `mapflow sweep`"
        )

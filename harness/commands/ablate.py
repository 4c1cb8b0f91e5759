"""`mapflow ablate`: a grid of interventions × seeds × ratios against one baseline.

Reports the runs of a folder, or runs the grid first. Everything after `--` goes to lmms_eval, which
answers the whole grid in one run, so every video is decoded once.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

from mapflow.harness.cli.arguments import chosen_margin
from mapflow.harness.cli.table_output import (
    add_comparison,
    add_output,
    check_output,
    write_tables,
)
from mapflow.model_adapters.progress import steps
from mapflow.results.contract.errors import QUESTIONS_MISSING, MapflowError
from mapflow.results.contract.visible_text import quoted
from mapflow.results.runs.processes import JOB, processes

INTERVENTIONS, SEEDS = "full,effective,random", "0,1,2"
"""The grid that runs by default."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = (
        "mapflow ablate RUN [RUN …] [options]"
        " | mapflow ablate --run DIR [options] [-- lmms_eval's options]"
    )
    parser.epilog = (
        "Several processes: torchrun --nproc_per_node N -m -- mapflow ablate --run DIR … (without"
        " the first --, torchrun takes --run for a flag of its own)."
    )
    parser.add_argument(
        "runs", nargs="*", metavar="RUN", help="folders of runs that are there already"
    )
    parser.add_argument("--run", metavar="DIR", help="run the grid, into this folder")
    parser.add_argument(
        "--interventions",
        metavar="A,B…",
        help=f"of the grid to run (default: {INTERVENTIONS}); random ones are run for every seed"
        " and ratio",
    )
    parser.add_argument(
        "--seeds", metavar="N,N…", help=f"of random ones in the grid (default: {SEEDS})"
    )
    parser.add_argument(
        "--ratios", metavar="R,R…", help="of random ones (default: as many edges as effective cuts)"
    )
    parser.add_argument(
        "--baseline", metavar="INTERVENTION", help="default: the first of each folder"
    )
    add_comparison(parser)
    add_output(parser)


def run(options: argparse.Namespace) -> int:
    """Exit code: 0, 3 if questions failed (the others are reported), or lmms_eval's if it fails."""
    from mapflow.harness.cli.chosen_runs import all_runs, with_baseline

    check_output(options)
    allowed = chosen_margin(options)
    if not options.run and not options.runs:
        raise MapflowError("name folders of runs to report, or --run DIR to run the grid")
    words, code = options.runs, 0
    grid_flags = ("interventions", "seeds", "ratios")
    given = [name for name in grid_flags if getattr(options, name) is not None]
    if given and not options.run:
        raise MapflowError(f"--{given[0]} is of a grid to run: add --run DIR, or leave it out")
    if options.run:
        if options.runs and not options.runs[0].startswith("-"):
            raise MapflowError(
                f"{quoted(options.runs[0])} beside --run: name folders of runs to report, or --run"
                " DIR and, after --, options of lmms_eval"
            )
        interventions = INTERVENTIONS if options.interventions is None else options.interventions
        seeds = SEEDS if options.seeds is None else options.seeds
        texts = grid(interventions, seeds, options.ratios)
        drawn = [name for name in given if name != "interventions"]
        if drawn and not any("random" in text for text in texts):
            raise MapflowError(
                f"--{drawn[0]} is of random interventions, and {interventions!r} names none"
            )
        if len(texts) < 2:
            raise MapflowError(
                f"a grid of {', '.join(texts)} alone compares nothing: name another intervention"
                " or another seed too"
            )
        quiet = ["--quiet"] if options.quiet else []
        code = _run_grid(texts, options.run, [*options.runs, *quiet])
        if code not in (0, QUESTIONS_MISSING):
            return code
        words = [options.run]
        if processes().rank > 0:
            return code  # the first process reports
    groups = with_baseline(all_runs(words), options.baseline)

    from mapflow.results.tables.ablation import ablation_tables

    with steps("comparing"):
        tables = ablation_tables(groups, margin=allowed, intersect=options.intersect)
    write_tables(tables, options)
    return code


def grid(interventions: str, seeds: str, ratios: str | None) -> list[str]:
    """Every intervention once, in canonical form; random ones for every seed and ratio.

    Raises MapflowError for a seed or ratio that is not a number, and as the grammar does.
    """
    from mapflow.model_adapters.interventions import parse_interventions

    chosen_seeds = _numbers(seeds, int, "--seeds")
    chosen_ratios = [None] if ratios is None else _numbers(ratios, float, "--ratios")
    found: dict[str, None] = {}
    for one in parse_interventions([interventions]):
        if one.random is None:
            found[one.expression] = None
            continue
        for ratio, seed in product(chosen_ratios, chosen_seeds):
            drawn = (
                replace(one.random, seed=seed)
                if ratio is None
                else replace(one.random, seed=seed, ratio=ratio)
            )
            policies = tuple(drawn if policy is one.random else policy for policy in one.policies)
            found[replace(one, policies=policies).expression] = None
    return list(found)


def _numbers(text: str, kind: type, option: str) -> list:
    try:
        return [kind(word) for word in text.split(",")]
    except ValueError:
        raise MapflowError(
            f"{option} {text!r} is not a list of numbers, e.g. {option} 0,1,2"
        ) from None


def _run_grid(interventions: Sequence[str], folder: str, passed_on: Sequence[str]) -> int:
    command = [sys.executable, "-m", "mapflow", "run", *passed_on]
    if not any(word.split("=")[0] == "--model" for word in passed_on):
        command += ["--model", "mapflow_llava"]
    for one in interventions:
        command += ["--intervention", one]
    job = processes().job  # else the parent's number would make each of several processes a job
    environment = {**os.environ, JOB: job} if job else None
    command += ["--output_path", folder]
    return subprocess.run(command, env=environment, check=False).returncode

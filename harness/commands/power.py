"""`mapflow power`: what could these runs have shown, and how many questions does a claim need?"""

from __future__ import annotations

import argparse
import math

from mapflow.harness.cli.arguments import at_least, chosen_margin
from mapflow.harness.cli.table_output import add_comparison, add_output, check_output, write_tables
from mapflow.results.contract.errors import MapflowError

CORRELATION = 0.3
"""Assumed correlation of two questions about one video, where no pair of runs tells it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = (
        "mapflow power RUN [RUN …] [options] | mapflow power --flips PERCENT [--questions N]"
        " [options]"
    )
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help="as in compare; a run alone needs --flips; none: a plan without runs",
    )
    parser.add_argument(
        "--baseline", metavar="INTERVENTION", help="within one folder (default: its first)"
    )
    add_comparison(parser)
    parser.add_argument(
        "--difference",
        type=float,
        metavar="POINTS",
        help="true difference that is to be found (default: the margin)",
    )
    parser.add_argument(
        "--power",
        type=float,
        default=80.0,
        metavar="PERCENT",
        help="wanted probability of the finding (default: 80)",
    )
    parser.add_argument(
        "--flips",
        type=float,
        metavar="PERCENT",
        help="assumed share of questions right in one of the two runs only (default: measured)",
    )
    parser.add_argument("--questions", type=at_least(1), metavar="N", help="of a plan without runs")
    parser.add_argument(
        "--per-video",
        type=float,
        metavar="N",
        help="questions per video of a plan without runs (default: 1)",
    )
    parser.add_argument(
        "--icc",
        type=float,
        metavar="R",
        help="assumed correlation of two questions about one video, without a pair of runs"
        f" (default: {CORRELATION})",
    )
    parser.add_argument(
        "--design-effect",
        type=float,
        metavar="X",
        help="assumed instead of that of the runs or of --icc",
    )
    add_output(parser)


def run(options: argparse.Namespace) -> int:
    check_output(options)
    margin = chosen_margin(options)
    difference = _number(options, "difference", 0, 100, margin * 100) / 100
    power = _number(options, "power", 0, 100, 80.0) / 100
    flips = _number(options, "flips", 0, 100, math.nan, top=True) / 100
    effect = _number(options, "design_effect", 0, 1e6, math.nan)
    if flips < difference:
        raise MapflowError(
            f"--flips {options.flips:g} is below the difference: a difference of"
            f" {100 * difference:g} points flips at least {100 * difference:g} % of the questions"
        )
    assumed = None if math.isnan(flips) else flips
    design_effect = None if math.isnan(effect) else effect
    designs, runs = _designs(options, margin, assumed, design_effect)

    from mapflow.results.tables.power import power_table

    table = power_table(designs, margin=margin, difference=difference, power=power, runs=runs)
    write_tables([table], options)
    return 0


def _designs(
    options: argparse.Namespace, margin: float, flips: float | None, effect: float | None
) -> tuple[list, list]:
    """The designs to show, and the runs that they come from."""
    correlation = _number(options, "icc", 0, 1, CORRELATION, bottom=True, top=True)
    if options.runs:
        _refuse(options, ("questions", "per_video"), "of a plan without runs: leave out RUN, or")
        from mapflow.harness.cli.chosen_runs import compared_runs

        groups, _ = compared_runs(options.runs, options.baseline, intersect=options.intersect)

        from mapflow.results.tables.comparison import compare_groups
        from mapflow.results.tables.power import design_of_pair, design_of_run

        every = [run for group in groups for run in group]
        if any(len(group) > 1 for group in groups):
            _refuse(options, ("icc",), "for runs without a pair, whose videos tell it: leave out")
            several = [group for group in groups if len(group) > 1]
            pairs = compare_groups(several, margin=margin, intersect=options.intersect)
            return [design_of_pair(one, flips, effect) for one in pairs], every
        if flips is None:
            raise MapflowError(
                f"{options.runs[0]!r} is one run alone: name a second one, or assume a share of"
                " flipped answers, e.g. --flips 10"
            )
        if empty := [run for run in every if not run.n]:
            raise MapflowError(f"{str(empty[0].source)!r} has no answered question")
        return [design_of_run(run, flips, correlation, effect) for run in every], every
    if flips is None:
        raise MapflowError(
            "name runs, or plan without them: --flips PERCENT, e.g. mapflow power --flips 10"
        )
    _refuse(options, ("baseline",), "of runs: name some, or leave out")
    per_video = _number(options, "per_video", 1, 1e6, 1.0, bottom=True)
    n = options.questions
    if n is not None and per_video > n:
        raise MapflowError(f"--per-video {per_video:g} is more than --questions {n}")
    import numpy as np

    from mapflow.results.statistics import kish_design_effect
    from mapflow.results.tables.power import Design

    planned = kish_design_effect(np.array([per_video]), correlation)
    videos = None if n is None else math.ceil(n / per_video)
    plan = Design("another run", "a run", "", flips, effect or planned, n, videos, per_video)
    return [plan], []


def _refuse(options: argparse.Namespace, names: tuple[str, ...], why: str) -> None:
    for name in names:
        if getattr(options, name) is not None:
            flag = f"--{name.replace('_', '-')}"
            raise MapflowError(f"{flag} is {why} {flag}")


def _number(
    options: argparse.Namespace,
    name: str,
    low: float,
    high: float,
    default: float,
    *,
    bottom: bool = False,
    top: bool = False,
) -> float:
    """The flag's value, or the default. Raises MapflowError outside low…high.

    bottom, top: whether the limits themselves are allowed.
    """
    value = getattr(options, name)
    if value is None:
        return default
    if not (low < value < high or (bottom and value == low) or (top and value == high)):
        raise MapflowError(
            f"--{name.replace('_', '-')} {value:g} must lie between {low:g} and {high:g}"
        )
    return value

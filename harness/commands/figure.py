"""`mapflow figure`: a sweep's route curves with simultaneous 95 % bands, as PNG, SVG and CSV."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sweep", type=Path, metavar="SWEEP", help="folder of a sweep")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="its .png, .svg and .csv are written (default: SWEEP/routes.png)",
    )
    parser.add_argument("--title", default="", help="above the panels (default: none)")


def run(options: argparse.Namespace) -> int:
    from mapflow.results.figures import route_curves, route_rows, save_figure
    from mapflow.results.report.sweeps import sweep_curves
    from mapflow.results.run_folder import SUMMARY, read_json, read_records
    from mapflow.results.sweep_record import SweepRecord

    curves = sweep_curves(read_records(options.sweep, SweepRecord))
    if (options.sweep / SUMMARY).is_file():  # the order in which the routes were asked for
        order = list(read_json(options.sweep / SUMMARY))
        curves.sort(key=lambda curve: order.index(curve.route) if curve.route in order else len(order))
    for curve in curves:
        if curve.note:
            print(f"{curve.route}: no band: {curve.note}")
    files = save_figure(
        route_curves(curves, options.title),
        options.output or options.sweep / "routes.png",
        route_rows(curves),
    )
    print(f"written: {', '.join(map(str, files))}")
    return 0

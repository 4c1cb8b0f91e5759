"""`mapflow figure`: what a folder holds, drawn, as PNG, SVG and CSV.

A sweep's route curves with simultaneous 95 % bands; a trace's answer probabilities and a lens's word frequencies by
layer, with pointwise ones. Several folders of traces (with and without final norm) go into one figure.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mapflow.results.contract.errors import MapflowError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Drawn = tuple["Figure", list[dict[str, Any]]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folders",
        type=Path,
        nargs="+",
        metavar="DIR",
        help="folder of a sweep, trace or lens; several traces (--norm and --no-norm) make one figure",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="its .png, .svg and .csv are written (default: DIR/routes.png, DIR/answers.png or DIR/words.png)",
    )
    parser.add_argument("--title", default="", help="above the panels (default: none)")
    parser.add_argument(
        "--words",
        type=Path,
        metavar="YAML",
        help="of a lens: named word lists, e.g. 'spatial: [left, right]' (default: shipped)",
    )


def run(options: argparse.Namespace) -> int:
    from mapflow.results.figures import save_figure

    kinds = {folder: _kind(folder) for folder in options.folders}
    folder: Path = options.folders[0]
    kind = kinds[folder]
    if len(options.folders) > 1 and set(kinds.values()) != {"trace"}:
        raise MapflowError(
            f"several folders make one figure only where all are traces; {str(folder)!r} is a {kind}: draw them one by one"
        )
    if options.words and kind != "lens":
        raise MapflowError(f"--words is for a lens; {str(folder)!r} is a {kind}")
    if kind == "sweep":
        name, (figure, rows) = "routes", _sweep(folder, options.title)
    elif kind == "trace":
        name, (figure, rows) = "answers", _trace(options.folders, options.title)
    else:
        name, (figure, rows) = "words", _lens(folder, options.title, options.words)
    files = save_figure(figure, options.output or folder / f"{name}.png", rows)
    print(f"written: {', '.join(map(str, files))}")
    return 0


def _kind(folder: Path) -> str:
    """Raises MapflowError for a folder without a sweep, trace or lens."""
    from mapflow.results.records.lens import LensRecord
    from mapflow.results.records.record import Record
    from mapflow.results.records.sweep import SweepRecord
    from mapflow.results.records.trace import TraceRecord

    files = {SweepRecord.FILE: "sweep", TraceRecord.FILE: "trace", LensRecord.FILE: "lens"}
    held = [file for file in files if (folder / file).is_file()]
    if len(held) == 1:
        return files[held[0]]
    if held:
        raise MapflowError(
            f"{str(folder)!r} holds {' and '.join(held)}: keep one of them in a folder"
        )
    if (folder / Record.FILE).is_file():
        raise MapflowError(
            f"{str(folder)!r} is a run; figures are of sweeps, traces and lenses: use mapflow report for a run"
        )
    raise MapflowError(
        f"{str(folder)!r} holds no {', '.join(files)}: not the folder of a sweep, trace or lens"
    )


def _sweep(folder: Path, title: str) -> Drawn:
    from mapflow.results.contract.files import read_json
    from mapflow.results.figures import route_curves, route_panels, route_rows
    from mapflow.results.records.sweep import SweepRecord
    from mapflow.results.runs.folder import SUMMARY, read_records

    curves = route_panels(read_records(folder, SweepRecord))
    if (folder / SUMMARY).is_file():  # the order in which the routes were asked for
        order = list(read_json(folder / SUMMARY))
        curves.sort(
            key=lambda curve: order.index(curve.route) if curve.route in order else len(order)
        )
    for curve in curves:
        if curve.note:
            print(f"{curve.route}: no band: {curve.note}")
    return route_curves(curves, title), route_rows(curves)


def _trace(folders: Sequence[Path], title: str) -> Drawn:
    from mapflow.results.figures import answer_curves, answer_panels, answer_rows
    from mapflow.results.records.trace import TraceRecord
    from mapflow.results.runs.folder import read_records

    records = [record for folder in folders for record in read_records(folder, TraceRecord)]
    found = answer_panels(records, [name for folder in folders for name in _asked(folder)])
    if any(not curve.low for one in found for curve in one.curves.values()):
        print("no band where all questions are about one video")
    return answer_curves(found, title), answer_rows(found)


def _lens(folder: Path, title: str, words: Path | None) -> Drawn:
    from mapflow.harness.analyses.word_lists import SHIPPED, read_word_lists
    from mapflow.results.figures import lens_curves, lens_panels, lens_rows
    from mapflow.results.records.lens import LensRecord
    from mapflow.results.runs.folder import read_records

    lists = read_word_lists(words or SHIPPED)
    found = lens_panels(read_records(folder, LensRecord), lists, _asked(folder))
    if any(not curve.low for one in found for curve in one.curves.values()):
        print("no band where all questions are about one video")
    return lens_curves(found, title), lens_rows(found)


def _asked(folder: Path) -> list[str]:
    """Interventions in the order in which they were asked for; empty without a manifest."""
    from mapflow.results.contract.files import read_json
    from mapflow.results.runs.folder import MANIFEST

    if not (folder / MANIFEST).is_file():
        return []
    return [str(name) for name in read_json(folder / MANIFEST).get("interventions") or ()]

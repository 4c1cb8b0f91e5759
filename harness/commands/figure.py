"""`mapflow figure`: curves of an analysis's folder, as PNG, SVG and CSV.

Several folders of traces (with and without final norm) make one figure.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mapflow.harness.analyses.analysis import QuestionAnalysis
from mapflow.harness.analyses.registry import asked_names, question_analyses
from mapflow.model_adapters.progress import steps
from mapflow.results.contract.errors import MapflowError

Kinds = dict[str, type[QuestionAnalysis[Any]]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = question_analyses()
    parser.add_argument(
        "folders",
        type=Path,
        nargs="+",
        metavar="DIR",
        help=f"folder of a {_listed(kinds)}; several traces (--norm and --no-norm) make one figure",
    )
    names = " or ".join(f"DIR/{kind.FIGURE}.png" for kind in kinds.values())
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help=f"its .png, .svg and .csv are written (default: {names})",
    )
    parser.add_argument("--title", default="", help="above the panels (default: none)")
    parser.add_argument(
        "--words",
        type=Path,
        metavar="YAML",
        help="of a lens: named word lists, e.g. 'spatial: [left, right]' (default: shipped)",
    )


def run(options: argparse.Namespace) -> int:
    from mapflow.results.contract.files import check_figure
    from mapflow.results.records.base import by_benchmark
    from mapflow.results.runs.folder import reported_records
    from mapflow.tasks.registry import benchmark_titles

    if options.output:
        check_figure(options.output)
    kinds = question_analyses()
    folder: Path = options.folders[0]
    names = {place: _kind_of(place, kinds) for place in options.folders}
    name, kind = names[folder], kinds[names[folder]]
    if len(options.folders) > 1 and not (kind.JOINS_FOLDERS and set(names.values()) == {name}):
        joined = " or ".join(f"{one}s" for one, each in kinds.items() if each.JOINS_FOLDERS)
        raise MapflowError(
            f"several folders make one figure only if all are {joined}; {str(folder)!r} is a"
            f" {name}: draw them one by one"
        )
    if options.words and not kind.TAKES_WORDS:
        takes = " or ".join(one for one, each in kinds.items() if each.TAKES_WORDS)
        raise MapflowError(f"--words is for a {takes}; {str(folder)!r} is a {name}")
    records = [one for place in options.folders for one in reported_records(place, kind.RECORD)]
    order = [one for place in options.folders for one in asked_names(place)]

    from mapflow.results.figures import save_figure

    output = options.output or folder / f"{kind.FIGURE}.png"
    groups = by_benchmark(records)
    for benchmark, own in groups.items():
        # A mean over several benchmarks would mean nothing: each has a figure of its own.
        several = len(groups) > 1
        title = options.title or (benchmark_titles().get(benchmark, benchmark) if several else "")
        file = output.with_stem(f"{output.stem}-{benchmark}") if several else output
        with steps(f"drawing {file.name}"):
            drawn = kind.figure(own, order, title, options.words)
            files = save_figure(drawn.figure, file, drawn.rows)
        print("\n".join([*drawn.notes, f"written: {', '.join(map(str, files))}"]))
    return 0


def _listed(kinds: Kinds) -> str:
    *others, last = kinds
    return f"{', '.join(others)} or {last}"


def _kind_of(folder: Path, kinds: Kinds) -> str:
    """Raises MapflowError for a folder without records of exactly one analysis."""
    from mapflow.results.records.record import Record

    held = {name: kind.RECORD.FILE for name, kind in kinds.items()}
    held = {name: file for name, file in held.items() if (folder / file).is_file()}
    if len(held) == 1:
        return next(iter(held))
    if held:
        raise MapflowError(
            f"{str(folder)!r} holds {' and '.join(held.values())}: keep one of them in a folder"
        )
    if (folder / Record.FILE).is_file():
        raise MapflowError(
            f"{str(folder)!r} is a run; figures are of a {_listed(kinds)}: use mapflow report for a"
            " run"
        )
    files = ", ".join(kind.RECORD.FILE for kind in kinds.values())
    raise MapflowError(f"{str(folder)!r} holds no {files}: not the folder of a {_listed(kinds)}")

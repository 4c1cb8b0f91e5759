"""Where tables go: --format and -o, shared by the commands that print them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mapflow.results.contract.errors import MapflowError

if TYPE_CHECKING:
    from mapflow.results.tables.formats import Table

FORMATS = ("terminal", "markdown", "latex", "csv", "json", "html")
SUFFIXES = {
    ".md": "markdown",
    ".tex": "latex",
    ".csv": "csv",
    ".json": "json",
    ".html": "html",
    ".txt": "terminal",
}


def add_output(parser: argparse.ArgumentParser) -> None:
    """--format and --output."""
    parser.add_argument(
        "--format", choices=FORMATS, help="default: as the output's name says, else terminal"
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="write there, not to the terminal"
    )


def add_margin(parser: argparse.ArgumentParser) -> None:
    """What every comparison can be told."""
    parser.add_argument(
        "--margin",
        type=float,
        default=2.0,
        metavar="POINTS",
        help="how much worse is still as good (default: 2)",
    )
    parser.add_argument(
        "--intersect",
        action="store_true",
        help="where question sets differ, compare the questions that are shared",
    )


def margin(options: argparse.Namespace) -> float:
    """As a fraction. Raises MapflowError for one that is no margin."""
    if not 0 < options.margin < 100:
        raise MapflowError(
            f"--margin {options.margin:g} must lie between 0 and 100 points, e.g. --margin 2"
        )
    return options.margin / 100


def write_tables(tables: Sequence[Table], options: argparse.Namespace) -> None:
    """Prints the tables, or writes them to --output. Raises MapflowError where that cannot be written."""
    from mapflow.results.tables.formats import render

    suffix = options.output.suffix.lower() if options.output else ""
    text = render(tables, options.format or SUFFIXES.get(suffix, "terminal"))
    if options.output is None:
        print(text, end="")
    else:
        write_text(options.output, text)


def write_text(path: Path, text: str) -> None:
    """Whole or not at all; says where. Raises MapflowError where that cannot be written."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise MapflowError(f"{str(path)!r} cannot be written: {error.strerror}") from error
    print(f"written: {path}")

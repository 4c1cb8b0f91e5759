"""Flags and output of the commands that print tables."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mapflow.harness.cli.arguments import add_margin
from mapflow.results.contract.files import write_file
from mapflow.results.tables.formats import FORMATS, Table, render

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
        "--format", choices=FORMATS, help="default: by the suffix of --output, else terminal"
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="write there, not to the terminal"
    )


def add_comparison(parser: argparse.ArgumentParser) -> None:
    """--margin and --intersect, which every comparison takes."""
    add_margin(parser)
    parser.add_argument(
        "--intersect",
        action="store_true",
        help="where question sets differ, compare the questions that are shared",
    )


def write_tables(tables: Sequence[Table], options: argparse.Namespace) -> None:
    """Prints the tables, or writes them to --output.

    Raises MapflowError if that cannot be written.
    """
    suffix = options.output.suffix.lower() if options.output else ""
    text = render(tables, options.format or SUFFIXES.get(suffix, "terminal"))
    if options.output is None:
        print(text, end="")
    else:
        write_text(options.output, text)


def write_text(path: Path, text: str) -> None:
    """Writes a file and prints its path. Raises MapflowError if it cannot be written."""
    write_file(path, text)
    print(f"written: {path}")

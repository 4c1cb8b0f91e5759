"""Flags and output of the commands that print tables."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mapflow.harness.cli.arguments import add_margin
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.files import check_writable, write_file
from mapflow.results.contract.visible_text import quoted
from mapflow.results.tables.formats import FORMATS, Table, by_kind, choose_columns, render

SUFFIXES = {
    ".md": "markdown",
    ".tex": "latex",
    ".csv": "csv",
    ".json": "json",
    ".html": "html",
    ".txt": "terminal",
}


ONE_KIND = ("csv", "latex")
"""Formats of which a file holds one kind of table; those of other kinds get files beside it."""


def add_output(parser: argparse.ArgumentParser) -> None:
    """--format, --output, and what the tables show: --columns, --compact, --caption, --label."""
    parser.add_argument(
        "--format", choices=FORMATS, help="default: by the suffix of --output, else terminal"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="write there, not to the terminal; of CSV and LaTeX, further kinds of tables (by"
        " subtask, interactions) go to FILE-KIND beside it",
    )
    parser.add_argument(
        "--columns",
        metavar="A,B…",
        help="show these columns, in this order: headings without signs (micro, p-holm) or names"
        " of raw values, as in CSV",
    )
    parser.add_argument(
        "--compact", action="store_true", help="the few columns that a paper's table needs"
    )
    parser.add_argument("--caption", metavar="TEXT", help="title of the table; LaTeX's caption")
    parser.add_argument(
        "--label", metavar="NAME", help=r"LaTeX's label, e.g. tab:main for \ref{tab:main}"
    )


def add_comparison(parser: argparse.ArgumentParser) -> None:
    """--margin and --intersect, which every comparison takes."""
    add_margin(parser)
    parser.add_argument(
        "--intersect",
        action="store_true",
        help="where question sets differ, compare the questions that are shared",
    )


def check_output(options: argparse.Namespace) -> None:
    """Raises MapflowError, before anything is computed, for a file that cannot be written and for
    flags of tables that do not go together."""
    if options.output is not None:
        check_writable(options.output, options.runs)
        suffix = options.output.suffix.lower()
        if suffix not in ("", *SUFFIXES) and not options.format:
            raise MapflowError(
                f"--output {quoted(str(options.output))}: no format is known for {quoted(suffix)};"
                f" use one of {', '.join(SUFFIXES)}, or add --format"
            )
    _column_words(options)
    _captioned([], options, _format(options))


def _format(options: argparse.Namespace) -> str:
    suffix = options.output.suffix.lower() if options.output else ""
    return options.format or SUFFIXES.get(suffix, "terminal")


def write_tables(tables: Sequence[Table], options: argparse.Namespace) -> None:
    """Prints the tables, or writes them to --output.

    Raises MapflowError if that cannot be written, for an unknown column, and for a label that LaTeX
    does not take.
    """
    how = _format(options)
    tables = _captioned(_chosen_columns(tables, options), options, how)
    if options.output is None:
        print(render(tables, how), end="")
        return
    kinds = by_kind(tables) if how in ONE_KIND else {"": tables}
    for at, (kind, own) in enumerate(kinds.items()):
        path = options.output
        path = path.with_name(f"{path.stem}-{kind}{path.suffix}") if at else path
        write_text(path, render(own, how))


def _chosen_columns(tables: Sequence[Table], options: argparse.Namespace) -> list[Table]:
    words = _column_words(options)
    if words is not None:
        return choose_columns(tables, words)
    return [table.compacted() if options.compact else table for table in tables]


def _column_words(options: argparse.Namespace) -> list[str] | None:
    """The words of --columns; None without it."""
    if options.columns is None:
        return None
    if options.compact:
        raise MapflowError("--columns and --compact both choose the columns: keep one")
    words = [word.strip() for word in options.columns.split(",") if word.strip()]
    if not words:
        raise MapflowError("--columns names no column, e.g. --columns treatment,difference,p-holm")
    return words


def _captioned(tables: Sequence[Table], options: argparse.Namespace, how: str) -> list[Table]:
    """The tables with --caption and --label; of several, each also keeps what tells it apart."""
    caption, label = options.caption, options.label
    if label is not None and how != "latex":
        raise MapflowError("--label is of LaTeX: add --format latex, or -o FILE.tex")
    if label is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9:._/+-]*", label):
        raise MapflowError(
            f"--label {label!r} may hold letters, digits and : . _ / + - alone, e.g. tab:main"
        )
    if caption is not None and not caption.strip():
        raise MapflowError("--caption is empty; leave it out for the table's own title")
    found = []
    for at, table in enumerate(tables):
        if caption is not None:
            title = f"{caption} ({table.title})" if len(tables) > 1 else caption
            table = replace(table, title=title, caption=True)
        if label is not None:
            table = replace(table, label=f"{label}-{at + 1}" if at else label)
        found.append(table)
    return found


def write_text(path: Path, text: str) -> None:
    """Writes a file and prints its path. Raises MapflowError if it cannot be written."""
    write_file(path, text)
    print(f"written: {path}")

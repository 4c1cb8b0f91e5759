"""Saves a figure as PNG and SVG, and its data as CSV.

The files contain no dates and no random ids, so the same figure gives the same bytes.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mapflow.results.contract.files import FIGURE_SUFFIXES, write_file
from mapflow.results.contract.visible_text import visible_lines
from mapflow.results.tables.formats import plain_cell

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 150


def save_figure(figure: Figure, path: Path, rows: Sequence[Mapping[str, Any]]) -> list[Path]:
    """Writes the figure and its data as `path` with the suffixes .png, .svg and .csv.

    path: with or without one of these suffixes.
    rows: the data, all with the same columns.

    Returns the files. Raises MapflowError if they cannot be written.
    """
    import matplotlib

    stem = figure_stem(path)
    files = [stem.with_name(stem.name + suffix) for suffix in FIGURE_SUFFIXES]
    png, svg = io.BytesIO(), io.BytesIO()
    figure.savefig(png, format="png", dpi=DPI, metadata={"Software": None})
    with matplotlib.rc_context({"svg.hashsalt": "mapflow", "svg.fonttype": "none"}):
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    for file, content in zip(files, (png.getvalue(), svg.getvalue(), as_csv(rows)), strict=True):
        write_file(file, content)
    return files


def figure_stem(path: Path) -> Path:
    """The path without one of `FIGURE_SUFFIXES`."""
    return path.with_suffix("") if path.suffix.lower() in FIGURE_SUFFIXES else path


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """A header and one line per row; an empty text without rows.

    None is an empty cell. Texts that a spreadsheet would run are escaped (`formats.plain_cell`).
    """
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: plain_cell(value) for name, value in row.items()} for row in rows)
    return visible_lines(text.getvalue())

"""Panels in a grid, their axes and legend: what all figures of curves have in common. Knows nothing of what they show.

Names come from data: mathtext is switched off for them, and what cannot be printed is replaced.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 3
INCHES = (2.3, 2.1)
"""Of one panel: three fit a page's width."""
TITLE_WIDTH = 34
"""Characters at most in a line of a panel's title."""
LEGEND_WIDTH = 14
"""Characters of a legend that fit on an inch."""
_BREAK = "\u200b"


def panels(
    titles: Sequence[str], title: str = "", columns: int = COLUMNS
) -> tuple[Figure, list[Axes]]:
    """A figure with a panel for each of `titles`, at most `columns` (and COLUMNS) in a row, all with the same axes."""
    from matplotlib.figure import Figure

    columns = min(columns, COLUMNS, len(titles))
    n_rows = -(-len(titles) // columns)
    figure = Figure(
        figsize=(INCHES[0] * columns + 0.5, INCHES[1] * n_rows + 0.6 + 0.3 * bool(title)),
        layout="constrained",
    )
    grid = (
        figure.subplots(n_rows, columns, sharex=True, sharey=True, squeeze=False).flatten().tolist()
    )
    for spare in grid[len(titles) :]:
        spare.remove()
    for panel, text in zip(grid, titles, strict=False):
        panel.set_title(wrapped(text), fontsize=8, parse_math=False)
        panel.tick_params(labelsize=8, labelbottom=True)
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.spines[["top", "right"]].set_visible(False)
    if title:
        figure.suptitle(wrapped(title, 100), fontsize=9, parse_math=False)
    return figure, grid[: len(titles)]


def add_legend(figure: Figure, handles: Sequence[Any], names: Sequence[str]) -> None:
    """Below all panels. Texts are set afterwards: a label that begins with an underscore would be left out."""
    longest = max(len(name) for name in names) + 8  # the line drawn before a name
    legend = figure.legend(
        handles,
        [str(number) for number in range(len(names))],
        loc="outside lower center",
        ncols=max(1, min(len(names), int(LEGEND_WIDTH * figure.get_figwidth()) // longest)),
        fontsize=8,
        frameon=False,
    )
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_parse_math(False)
        text.set_text(printable(name))


def wrapped(text: str, width: int = TITLE_WIDTH) -> str:
    """In lines of at most `width`, three at most; also names without a space."""
    breakable = printable(text).replace("+", f"+{_BREAK} ").replace(",", f",{_BREAK} ")
    lines = [
        line.replace(f"{_BREAK} ", "").replace(_BREAK, "")
        for line in textwrap.wrap(breakable, width)
    ]
    lines = lines or [""]
    return "\n".join(lines if len(lines) <= 3 else [*lines[:2], lines[2][: width - 1] + "…"])


def printable(text: str) -> str:
    """What neither paper nor an SVG can hold becomes U+FFFD."""
    return "".join(one if one.isprintable() else "\ufffd" for one in text)


class Pen(NamedTuple):
    colour: str
    dash: str
    marker: str


PENS = (
    Pen("#0072B2", "-", "o"),
    Pen("#D55E00", "--", "s"),
    Pen("#009E73", "-.", "^"),
    Pen("#CC79A7", ":", "D"),
    Pen("#000000", (0, (5, 1, 1, 1, 1, 1)), "v"),  # pyright: ignore[reportArgumentType]
    Pen("#56B4E9", "-", "P"),
    Pen("#E69F00", "--", "X"),
)


def pen(number: int) -> Pen:
    """The pen of the `number`-th curve (0, 1, …); after seven they come again."""
    return PENS[number % len(PENS)]

"""Parts that all figures of curves share: a grid of panels, line styles, a legend, safe names.

Names come from data, so mathtext is switched off for them and unprintable characters are replaced.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 3
"""Panels side by side, at most."""
INCHES = (2.3, 2.1)
"""Width and height of one panel: three fit the width of a page."""
TITLE_WIDTH = 34
"""Characters per line of a panel's title, at most."""
LEGEND_WIDTH = 14
"""Characters of the legend per inch of the figure."""
_BREAK = "\u200b"


class Pen(NamedTuple):
    """How a curve is drawn. Curves differ in colour, dash and marker, also in black and white."""

    colour: str
    dash: str
    marker: str


# The colours of Okabe & Ito (2008) without yellow, which is too pale on paper.
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
    """The pen of curve `number` (from 0); pens repeat after seven."""
    return PENS[number % len(PENS)]


def panels(
    blocks: Sequence[Sequence[str]], title: str = "", one_scale: bool = True
) -> tuple[Figure, list[list[Axes]]]:
    """A figure with one panel per panel title, and its panels in the blocks of `blocks`.

    Each block starts a new row of at most COLUMNS panels. All panels share the horizontal axis.
    With `one_scale` they share the vertical axis too, otherwise those of a block do.
    """
    from matplotlib.figure import Figure

    columns = min(COLUMNS, max(map(len, blocks)))
    rows = [-(-len(titles) // columns) for titles in blocks]
    figure = Figure(
        figsize=(INCHES[0] * columns + 0.5, INCHES[1] * sum(rows) + 0.6 + 0.3 * bool(title)),
        layout="constrained",
    )
    cells = figure.add_gridspec(sum(rows), columns)
    first: Axes | None = None
    found: list[list[Axes]] = []
    for number, titles in enumerate(blocks):
        top = sum(rows[:number])
        scale = first if one_scale else None
        block: list[Axes] = []
        for place, text in enumerate(titles):
            cell = cells[top + place // columns, place % columns]
            panel = figure.add_subplot(cell, sharex=first, sharey=scale)
            first, scale = first or panel, scale or panel
            panel.set_title(wrapped(text), fontsize=8, parse_math=False)
            panel.tick_params(labelsize=8, labelleft=place % columns == 0)
            locator: Any = panel.xaxis.get_major_locator()
            locator.set_params(integer=True)
            panel.spines[["top", "right"]].set_visible(False)
            block.append(panel)
        found.append(block)
    if title:
        figure.suptitle(wrapped(title, 100), fontsize=9, parse_math=False)
    return figure, found


def add_legend(figure: Figure, handles: Sequence[Any], names: Sequence[str]) -> None:
    """Draws one legend below all panels."""
    longest = max(len(name) for name in names) + 8  # plus the line in front of the name
    legend = figure.legend(
        handles,
        [str(number) for number in range(len(names))],
        loc="outside lower center",
        ncols=max(1, min(len(names), int(LEGEND_WIDTH * figure.get_figwidth()) // longest)),
        fontsize=8,
        frameon=False,
    )
    # matplotlib leaves out labels that begin with an underscore, so the texts are set afterwards
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_parse_math(False)
        text.set_text(printable(name))


def wrapped(text: str, width: int = TITLE_WIDTH) -> str:
    """The text in at most three lines of at most `width` characters.

    Lines also break behind + and a comma; longer texts end in an ellipsis.
    """
    breakable = printable(text).replace("+", f"+{_BREAK} ").replace(",", f",{_BREAK} ")
    lines = [
        line.replace(f"{_BREAK} ", "").replace(_BREAK, "")
        for line in textwrap.wrap(breakable, width)
    ]
    lines = lines or [""]
    return "\n".join(lines if len(lines) <= 3 else [*lines[:2], lines[2][: width - 1] + "…"])


def printable(text: str) -> str:
    """The text with U+FFFD in place of unprintable characters, which SVG cannot hold."""
    return "".join(one if one.isprintable() else "\ufffd" for one in text)

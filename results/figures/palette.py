"""Colours and lines that survive colour-blind eyes and a black-and-white printer.

The eight colours of Okabe & Ito (2008) but for yellow, which paper swallows. Whatever differs in colour differs in dash
and marker too.
"""

from __future__ import annotations

from typing import NamedTuple


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

"""Writes on each patch of a frame the word that the patch most probably looks like."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, UInt8

from mapflow.results.figures.panels import printable, wrapped
from mapflow.results.figures.pictures import draw_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CELL = 0.36
"""Width of a word in inches."""
LONGEST = 8
"""Characters that fit on a patch."""
BLACK = 0.7
"""Grey level for black pixels, so that all words can be read."""
PAGE = 14.0
"""Width of the page in inches."""


@dataclass(frozen=True)
class LensOverlay:
    """The words of one question in one layer.

    pictures: the frames as the model sees them; numbers: their numbers in the video file.
    words: the most probable word of each patch, `words[frame][row][column]`.
    probabilities: theirs, from 0 to 1.
    """

    pictures: UInt8[np.ndarray, "frame height width 3"]
    numbers: tuple[int, ...]
    words: tuple[tuple[tuple[str, ...], ...], ...]
    probabilities: Float[np.ndarray, "frame row column"]
    title: str = ""


def lens_overlay(overlay: LensOverlay) -> Figure:
    """One panel per frame. The more probable a word, the darker it is."""
    from matplotlib.figure import Figure

    n_frames, rows, columns = overlay.probabilities.shape
    height, width = overlay.pictures.shape[1:3]
    # wide enough for the words, and high enough for both words and picture
    across = max(columns * CELL, rows * CELL * 0.5 * width / height, 1.5)
    side_by_side = max(1, min(n_frames, int(PAGE / across)))
    down = -(-n_frames // side_by_side)
    figure = Figure(
        figsize=(across * side_by_side + 0.2, (across * height / width + 0.25) * down + 0.4),
        layout="constrained",
    )
    grid = figure.subplots(down, side_by_side, squeeze=False).flatten().tolist()
    for spare in grid[n_frames:]:
        spare.remove()
    for frame, panel in enumerate(grid[:n_frames]):
        draw_picture(panel, overlay.pictures[frame], BLACK)
        panel.set_title(f"frame {overlay.numbers[frame]}", fontsize=7, pad=2)
        for row, column in np.ndindex(rows, columns):
            panel.text(
                (column + 0.5) * width / columns,
                (row + 0.5) * height / rows,
                drawable(overlay.words[frame][row][column]),
                color=str(round(0.4 * (1 - float(overlay.probabilities[frame, row, column])), 3)),
                fontsize=5,
                ha="center",
                va="center",
                parse_math=False,
            )
        for line in range(1, rows):
            panel.axhline(line * height / rows, color="white", linewidth=0.4)
        for line in range(1, columns):
            panel.axvline(line * width / columns, color="white", linewidth=0.4)
    if overlay.title:
        figure.suptitle(wrapped(overlay.title, 16 * side_by_side), fontsize=8, parse_math=False)
    return figure


def lens_overlay_rows(overlay: LensOverlay) -> list[dict[str, Any]]:
    """The figure's data: one row per patch, from 0 at the top left. Words are not shortened."""
    return [
        {
            "frame": number,
            "row": row,
            "column": column,
            "word": overlay.words[frame][row][column],
            "probability": float(f"{overlay.probabilities[frame, row, column]:.6g}"),
        }
        for frame, number in enumerate(overlay.numbers)
        for row, column in np.ndindex(*overlay.probabilities.shape[1:])
    ]


def drawable(word: str) -> str:
    """The word as it is drawn: shortened to the patch, a box for characters that the font lacks.

    An empty word is a dot.
    """
    text = "".join(one if _has_sign(one) else "□" for one in printable(word)) or "·"
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


@cache
def _has_sign(character: str) -> bool:
    from matplotlib.font_manager import findfont, get_font

    return get_font(findfont("DejaVu Sans")).get_char_index(ord(character)) != 0

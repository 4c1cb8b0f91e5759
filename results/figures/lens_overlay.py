"""Which word does each patch of a frame look like? The most probable one, written where the patch lies.

Knows no models: frames, words and probabilities are arrays.
"""

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
"""Inches that a word has."""
LONGEST = 8
"""Characters that fit there."""
BLACK = 0.7
"""Grey of a frame's black: words of any probability can be read on it."""
PAGE = 14.0
"""Inches that frames may take side by side."""


@dataclass(frozen=True)
class LensOverlay:
    """`pictures` are what the model sees of the frames, whose numbers in the source are `numbers`; `words[frame][row][column]`
    stand for patches that tile each picture, `probabilities` are theirs."""

    pictures: UInt8[np.ndarray, "frame height width 3"]
    numbers: tuple[int, ...]
    words: tuple[tuple[tuple[str, ...], ...], ...]
    probabilities: Float[np.ndarray, "frame row column"]
    title: str = ""


def lens_overlay(overlay: LensOverlay) -> Figure:
    """A panel a frame. The more probable a word, the blacker."""
    from matplotlib.figure import Figure

    n_frames, rows, columns = overlay.probabilities.shape
    height, width = overlay.pictures.shape[1:3]
    # as wide as the words ask for, and as high as the taller of words and picture
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
    """A row a patch; rows and columns count from 0 at the top left. Words are whole."""
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
    """In the figure's font and as long as a patch has room: what it has no sign for is a box, nothing a dot."""
    text = "".join(one if _has_sign(one) else "□" for one in printable(word)) or "·"
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


@cache
def _has_sign(character: str) -> bool:
    from matplotlib.font_manager import findfont, get_font

    return get_font(findfont("DejaVu Sans")).get_char_index(ord(character)) != 0

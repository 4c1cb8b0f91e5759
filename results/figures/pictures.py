"""Draws video frames with a map over them.

Frames are pale and grey, so that a map stays visible, also in print. Weights have one colour, the
more opaque the larger; negative differences have a second one. Both are from Okabe & Ito (2008).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, UInt8

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.image import AxesImage

MORE, LESS = "#D55E00", "#0072B2"
OPAQUE = 0.75
"""Opacity of the largest weight: the frame below it must stay visible."""
BLACK = 0.45
"""Grey level for black pixels of a frame; white pixels stay white."""


def draw_picture(
    panel: Axes, frame: UInt8[np.ndarray, "height width 3"], black: float = BLACK
) -> None:
    """Draws the frame over the whole panel, whose coordinates are the frame's pixels."""
    height, width = frame.shape[:2]
    light = frame @ np.array([0.299, 0.587, 0.114]) / 255
    panel.imshow(
        black + (1 - black) * light,
        cmap="gray",
        vmin=0,
        vmax=1,
        extent=(0, width, height, 0),
        interpolation="antialiased",
    )
    panel.set_xticks([])
    panel.set_yticks([])
    panel.spines[:].set_linewidth(0.4)


def draw_heat(
    panel: Axes,
    frame: UInt8[np.ndarray, "height width 3"],
    heat: Float[np.ndarray, "rows columns"],
    most: float,
    signed: bool = False,
) -> AxesImage:
    """Draws a map of equal patches over a frame.

    heat: one weight per patch.
    most: the weight that gets the full colour.
    signed: whether weights may be negative, down to -most.
    """
    draw_picture(panel, frame)
    height, width = frame.shape[:2]
    return panel.imshow(
        heat,
        cmap=colours(signed),
        vmin=-most if signed else 0,
        vmax=most,
        extent=(0, width, height, 0),
        interpolation="nearest",
    )


def colours(signed: bool) -> LinearSegmentedColormap:
    """The colours from transparent to MORE; with `signed`, from LESS over transparent to MORE."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgba

    some = [(0.5, to_rgba(MORE, 0)), (1.0, to_rgba(MORE, OPAQUE))]
    if signed:
        stops = [(0.0, to_rgba(LESS, OPAQUE)), (0.5, to_rgba(LESS, 0)), *some]
    else:
        stops = [(0.0, to_rgba(MORE, 0)), some[-1]]
    return LinearSegmentedColormap.from_list("heat", stops)


def top_of_scale(maps: Float[np.ndarray, ...]) -> float:
    """The weight that gets the full colour: the 99th percentile of the sizes of nonzero weights.

    A few tokens draw most of the attention; scaled by them, all others would look pale.
    """
    sizes = np.abs(maps[maps != 0])
    return float(np.percentile(sizes, 99)) if sizes.size else 1.0

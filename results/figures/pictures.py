"""Frames as the ground of a figure: pale and grey, so that what is laid over them shows, also in print.

Heat is one colour, the more opaque the larger the weight; differences have a second colour for less than nothing. Both
are of Okabe & Ito. Knows no models: frames and maps are arrays.
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
"""Of the full colour: what is looked at most must still be seen."""
BLACK = 0.45
"""Grey that a frame's black becomes; its white stays white."""


def draw_picture(
    panel: Axes, frame: UInt8[np.ndarray, "height width 3"], black: float = BLACK
) -> None:
    """The frame fills the panel, which is measured in its pixels."""
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
    """Equal patches over the whole frame, from no colour at 0 to full colour at `most` (and at -most, where `signed`)."""
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
    """From see-through to MORE; with `signed` from LESS through nothing to MORE."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgba

    some = [(0.5, to_rgba(MORE, 0)), (1.0, to_rgba(MORE, OPAQUE))]
    if signed:
        stops = [(0.0, to_rgba(LESS, OPAQUE)), (0.5, to_rgba(LESS, 0)), *some]
    else:
        stops = [(0.0, to_rgba(MORE, 0)), some[-1]]
    return LinearSegmentedColormap.from_list("heat", stops)


def top_of_scale(maps: Float[np.ndarray, ...]) -> float:
    """What gets the full colour: the 99th percentile of what is not zero, by size. A few tokens draw most attention
    wherever one looks, and would leave all others pale."""
    sizes = np.abs(maps[maps != 0])
    return float(np.percentile(sizes, 99)) if sizes.size else 1.0

"""Means over questions in every layer with a 95 % interval, and panels that draw them.

Intervals are pointwise: one cluster bootstrap by video in each layer. They are not simultaneous
bands, so a mean outside its interval in one of thirty layers is expected. (The bands of sweeps
hold for all layers at once.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import coded
from mapflow.results.figures.panels import Pen, add_legend, panels, pen
from mapflow.results.statistics import cluster_bootstrap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RESAMPLES = 2_000
NO_INTERVAL = "none: one video"


@dataclass(frozen=True)
class MeanCurve:
    """A mean over questions in every layer, as fractions.

    n: questions; n_videos: videos that they are about.
    mean, low, high: entry l is of layer l + 1; low and high are empty if all questions are about
        one video.
    interval: the method of the interval, in words.
    """

    n: int
    n_videos: int
    mean: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    interval: str = NO_INTERVAL

    def rows(self, about: Mapping[str, Any]) -> list[dict[str, Any]]:
        """One row per layer: the columns of `about`, then the numbers (None without interval)."""
        return [
            {
                **about,
                "layer": layer + 1,
                "n": self.n,
                "videos": self.n_videos,
                "mean": mean,
                "low": self.low[layer] if self.low else None,
                "high": self.high[layer] if self.high else None,
                "interval": self.interval,
            }
            for layer, mean in enumerate(self.mean)
        ]


@dataclass(frozen=True)
class CurvePanel:
    """One panel of mean curves.

    title: above the panel.
    about: columns of the figure's data that are the same for all curves of the panel.
    curves: the curves by their names in the legend.
    """

    title: str
    about: Mapping[str, Any]
    curves: Mapping[str, MeanCurve]


@dataclass(frozen=True)
class CurveBlock:
    """Panels that belong together and share a vertical axis, as a report shows them.

    label: of the vertical axis.
    ordered: whether the curves are a series, such as frames, which is drawn from pale to dark.
    """

    label: str
    panels: Sequence[CurvePanel]
    ordered: bool = False


def mean_curve(
    values: Float[np.ndarray, "n layers"],
    videos: Sequence[str],
    weights: Sequence[int] | None = None,
) -> MeanCurve:
    """The mean of `values` over questions, with its interval by video.

    videos: the video of each question.
    weights: whole numbers from 1; a question of weight w counts as w questions.
    """
    cluster = np.array(coded(videos)[1])
    times = np.asarray(weights or [1] * len(values))
    repeated, cluster = np.repeat(values, times, axis=0), np.repeat(cluster, times)
    n, n_videos, mean = len(values), len(set(videos)), tuple(repeated.mean(axis=0).tolist())
    if n_videos < 2:
        return MeanCurve(n, n_videos, mean)
    found = [cluster_bootstrap(layer, cluster, resamples=RESAMPLES) for layer in repeated.T]
    interval = f"pointwise 95 %, {found[0].method}, by video"
    return MeanCurve(
        n, n_videos, mean, tuple(f.low for f in found), tuple(f.high for f in found), interval
    )


def check_depth(intervention: str, depths: Sequence[int]) -> None:
    """Raises MapflowError if records of one intervention differ in their number of layers."""
    if len(set(depths)) > 1:
        layers = " and ".join(map(str, sorted(set(depths))))
        raise MapflowError(
            f"{intervention!r}: records of {layers} layers cannot be averaged; draw runs of models"
            " of different depth separately"
        )


def draw_panels(
    blocks: Sequence[Sequence[CurvePanel]], label: str, title: str = "", order: Sequence[str] = ()
) -> Figure:
    """One figure of all panels on one scale in percent, with one legend below them.

    blocks: panels that start a new row together.
    label: of the vertical axis.
    order: curve names in the order of their pens; other names follow.
    """
    figure, grid = panels([[one.title for one in block] for block in blocks], title)
    names = list(dict.fromkeys([*order, *(n for b in blocks for one in b for n in one.curves)]))
    handles: dict[str, Any] = {}
    for block, drawn in zip(blocks, grid, strict=True):
        for one, panel in zip(block, drawn, strict=True):
            for number, name in enumerate(names):
                if name in one.curves:
                    handles[name] = draw_curve(panel, one.curves[name], pen(number))
        label_axes(block, drawn, label)
    add_legend(figure, list(handles.values()), list(handles))
    return figure


def label_axes(block: Sequence[CurvePanel], drawn: Sequence[Axes], label: str) -> None:
    """Names the axes of a block of drawn panels; vertical axes start at 0."""
    for one, panel in zip(block, drawn, strict=True):
        panel.set_xlabel(f"layer (n = {max(c.n for c in one.curves.values())})", fontsize=8)
        panel.set_ylim(bottom=0)
        if panel.get_subplotspec().is_first_col():  # pyright: ignore[reportOptionalMemberAccess]
            panel.set_ylabel(label, fontsize=8)


def draw_curve(panel: Axes, curve: MeanCurve, ink: Pen) -> Any:
    """Draws a curve in percent with its interval; returns the line, for a legend."""
    layers = np.arange(1, len(curve.mean) + 1)
    if curve.low:
        low, high = 100 * np.array(curve.low), 100 * np.array(curve.high)
        panel.fill_between(layers, low, high, color=ink.colour, alpha=0.2, linewidth=0)
    (line,) = panel.plot(
        layers,
        100 * np.array(curve.mean),
        color=ink.colour,
        linestyle=ink.dash,
        marker=ink.marker,
        markersize=3.5,
        markevery=max(1, len(layers) // 8),
        linewidth=1.4,
    )
    return line


def panel_rows(found: Sequence[CurvePanel], column: str) -> list[dict[str, Any]]:
    """The figure's data: one row per panel, curve and layer; `column` holds the curve's name."""
    return [
        row
        for one in found
        for name, curve in one.curves.items()
        for row in curve.rows({**one.about, column: name})
    ]

"""A mean over questions in every layer, with a 95 % interval in each: what figures of traces and lenses draw.

Intervals are pointwise cluster bootstraps by video, layer by layer: a curve that leaves its band in one of thirty layers
is no surprise. (Sweeps' bands hold for all layers at once.) Knows no records.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from mapflow.results.figures.panels import pen
from mapflow.results.statistics import cluster_bootstrap

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RESAMPLES = 2_000
NO_INTERVAL = "none: one video"


@dataclass(frozen=True)
class MeanCurve:
    """`mean`, `low`, `high` hold an entry a layer from layer 1 on, as fractions; the latter two are empty where questions
    about a single video allow no interval. `interval` says which it is."""

    n: int
    n_videos: int
    mean: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    interval: str = NO_INTERVAL

    def rows(self, about: dict[str, Any]) -> list[dict[str, Any]]:
        """A row a layer: `about`, then the numbers; low and high are None without an interval."""
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


def mean_curve(
    values: Float[np.ndarray, "n layers"],
    videos: Sequence[str],
    weights: Sequence[int] | None = None,
) -> MeanCurve:
    """Mean of `values` over questions; `weights` (whole numbers ≥ 1) counts a question as that many."""
    cluster = np.unique(videos, return_inverse=True)[1]
    times = np.asarray(weights or [1] * len(values))
    every, cluster = np.repeat(values, times, axis=0), np.repeat(cluster, times)
    n, n_videos, mean = len(values), len(set(videos)), tuple(every.mean(axis=0).tolist())
    if n_videos < 2:
        return MeanCurve(n, n_videos, mean)
    found = [cluster_bootstrap(layer, cluster, resamples=RESAMPLES) for layer in every.T]
    interval = f"pointwise 95 %, {found[0].method}, by video"
    return MeanCurve(
        n, n_videos, mean, tuple(f.low for f in found), tuple(f.high for f in found), interval
    )


def draw_curve(panel: Axes, curve: MeanCurve, number: int) -> Any:
    """The curve in percent with its band, in the `number`-th pen; returns the line, for a legend."""
    ink, layers = pen(number), np.arange(1, len(curve.mean) + 1)
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

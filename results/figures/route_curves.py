"""Where does cutting a route change the answer? A panel a route over all layers, with simultaneous 95 % bands.

A band holds for all layers of its route at once (max-T by video, results/statistics), and filled markers are layers
whose change is significant in that sense. All panels share one scale, so they can be compared by eye.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mapflow.results.contract.errors import MapflowError
from mapflow.results.figures.panels import pen
from mapflow.results.records.sweep import SweepRecord
from mapflow.results.statistics import simultaneous_bands

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INCHES = (2.1, 2.3)
"""Of one panel: three fit a page's width."""


def route_curves(curves: Sequence[RoutePanel], title: str = "") -> Figure:
    """One panel a curve, in a row. Bands that reach beyond the shared scale are cut off at its edges, as in the report.

    Raises MapflowError without any curve.
    """
    if not curves:
        raise MapflowError(
            "no route has a change to draw: every question was left out, failed or too improbable"
        )
    from matplotlib.figure import Figure

    bottom, top = shared_scale(curves)
    figure = Figure(
        figsize=(INCHES[0] * len(curves) + 0.5, INCHES[1] + 0.3 * bool(title)), layout="constrained"
    )
    panels = figure.subplots(1, len(curves), sharey=True, squeeze=False)[0]
    for number, (curve, panel) in enumerate(zip(curves, panels, strict=True)):
        ink, layers = pen(number), range(1, len(curve.mean) + 1)
        panel.axhline(0, color="0.6", linewidth=0.8)
        if curve.low:
            panel.fill_between(
                layers, curve.low, curve.high, color=ink.colour, alpha=0.25, linewidth=0
            )
        panel.plot(layers, curve.mean, color=ink.colour, linestyle=ink.dash, linewidth=1.4)
        for marked, face in ((True, ink.colour), (False, "white")):
            chosen = [
                i
                for i in range(len(curve.mean))
                if (curve.significant or (False,) * len(curve.mean))[i] == marked
            ]
            panel.plot(
                [i + 1 for i in chosen],
                [curve.mean[i] for i in chosen],
                linestyle="none",
                marker=ink.marker,
                markersize=4,
                markeredgewidth=0.8,
                color=ink.colour,
                markerfacecolor=face,
            )
        panel.set_title(curve.route.replace("->", " → "), fontsize=9)
        panel.set_xlabel(f"layer (n = {curve.n})", fontsize=8)
        panel.tick_params(labelsize=8)
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylim(bottom, top)
    panels[0].set_ylabel("change of the answer's\nprobability, %", fontsize=8)
    if title:
        figure.suptitle(title, fontsize=9)
    return figure


def route_rows(curves: Sequence[RoutePanel]) -> list[dict[str, Any]]:
    """The figure's data: a row a route and layer, changes in percent; low, high and significant are None without a band."""
    return [
        {
            "route": curve.route,
            "layer": layer + 1,
            "n": curve.n,
            "mean": mean,
            "low": curve.low[layer] if curve.low else None,
            "high": curve.high[layer] if curve.high else None,
            "significant": curve.significant[layer] if curve.significant else None,
        }
        for curve in curves
        for layer, mean in enumerate(curve.mean)
    ]


RESOLUTION = 5.0
"""Percent: questions whose changes differ by less do not differ for our purpose (simultaneous_bands). Layers where next to
nothing happens would otherwise widen all bands."""


@dataclass(frozen=True)
class RoutePanel:
    """Mean relative change of the plain run's answer in percent, an entry a layer from layer 1 on. `low`, `high` and
    `significant` are empty, and `note` says why, where no band can be given."""

    route: str
    n: int
    mean: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    significant: tuple[bool, ...] = ()
    note: str = ""


def route_panels(records: Sequence[SweepRecord]) -> list[RoutePanel]:
    """One curve a route that any question has a change for. Questions without one (left out, errors, a plain
    probability too small) count for none; n says how many do."""
    by_route: dict[str, list[SweepRecord]] = {}
    for record in records:
        if record.change_answer is not None:
            by_route.setdefault(record.route, []).append(record)
    return [_curve(route, own) for route, own in by_route.items()]


def _curve(route: str, records: Sequence[SweepRecord]) -> RoutePanel:
    change = np.array([record.change_answer for record in records], dtype=float)
    cluster = np.unique([record.video_id for record in records], return_inverse=True)[1]
    mean = tuple(change.mean(axis=0).tolist())
    try:
        found = simultaneous_bands(change, cluster, resolution=RESOLUTION)
    except MapflowError as error:
        return RoutePanel(route, len(records), mean, note=str(error))
    low, high, significant = (
        tuple(part.tolist()) for part in (found.low, found.high, found.significant)
    )
    return RoutePanel(route, len(records), mean, low, high, significant)


def shared_scale(curves: Sequence[RoutePanel]) -> tuple[float, float]:
    """Round percentages below and above the means and, as far as a reader can use them, the bands: a probability cannot
    lose more than all of itself, and few questions make bands that would flatten every curve. Zero is always inside."""
    means = [0.0, *(value for curve in curves for value in curve.mean)]
    bands = [value for curve in curves for value in (*curve.low, *curve.high)]
    bottom = max(-100.0, np.floor(min([*means, *bands]) / 5) * 5)
    top = min(np.ceil(max([*means, *bands]) / 5) * 5, max(20.0, np.ceil(1.5 * max(means) / 5) * 5))
    return float(bottom), float(max(top, bottom + 5, 0))

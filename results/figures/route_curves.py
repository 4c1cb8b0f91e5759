"""Draws how cutting a route in each layer changes the answer, with simultaneous 95 % bands.

One panel per route. A band holds for all layers of its route at once (max-T by video). Filled
markers are layers whose change is significant in this sense. All panels share one scale, so they
can be compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import coded
from mapflow.results.figures.panels import pen
from mapflow.results.records.sweep import SweepRecord
from mapflow.results.statistics import Interval, simultaneous_bands
from mapflow.results.tables.sweeps import accuracy_drops

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INCHES = (2.1, 2.3)
"""Width and height of one panel: three fit the width of a page."""
RESOLUTION = 5.0
"""Spread between questions, in percent, that `simultaneous_bands` ignores.

Layers where almost nothing changes would otherwise widen the bands of all layers.
"""


@dataclass(frozen=True)
class RoutePanel:
    """Mean relative change of the baseline run's answer under a knockout of one route, in percent.

    n: questions that have a change.
    mean, low, high, significant: entry l is of layer l + 1; all but `mean` are empty, and `note`
        gives the reason, if no band can be computed.
    n_right, drops: the questions that the baseline run answers right, and how many points of their
        accuracy are lost in each layer (`accuracy_drops`).
    """

    route: str
    n: int
    mean: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    significant: tuple[bool, ...] = ()
    note: str = ""
    n_right: int = 0
    drops: tuple[Interval, ...] = ()


def route_panels(records: Sequence[SweepRecord]) -> list[RoutePanel]:
    """One panel per route for which any question has a change.

    Questions without a change are left out: failed ones, those outside the sample, and those
    whose baseline probability is too small.
    """
    by_route: dict[str, list[SweepRecord]] = {}
    for record in records:
        if record.measured and record.change_answer is not None:
            by_route.setdefault(record.route, []).append(record)
    return [_panel(route, own) for route, own in by_route.items()]


def _panel(route: str, records: Sequence[SweepRecord]) -> RoutePanel:
    change = np.array([record.change_answer for record in records], dtype=float)
    cluster = np.array(coded(record.video_id for record in records)[1])
    mean = tuple(change.mean(axis=0).tolist())
    n_right, drops = accuracy_drops(records)
    try:
        bands = simultaneous_bands(change, cluster, resolution=RESOLUTION)
    except MapflowError as error:
        return RoutePanel(route, len(records), mean, note=str(error), n_right=n_right, drops=drops)
    low, high, significant = (
        tuple(part.tolist()) for part in (bands.low, bands.high, bands.significant)
    )
    return RoutePanel(
        route, len(records), mean, low, high, significant, n_right=n_right, drops=drops
    )


def route_curves(found: Sequence[RoutePanel], title: str = "") -> Figure:
    """All panels in one row. Bands are cut off at the shared scale, as in the report.

    Raises MapflowError without panels.
    """
    if not found:
        raise MapflowError(
            "no route has a change to draw: every question was left out, failed or too improbable"
        )
    from matplotlib.figure import Figure

    bottom, top = shared_scale(found)
    figure = Figure(
        figsize=(INCHES[0] * len(found) + 0.5, INCHES[1] + 0.3 * bool(title)), layout="constrained"
    )
    panels = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
    for number, (one, panel) in enumerate(zip(found, panels, strict=True)):
        ink, layers = pen(number), range(1, len(one.mean) + 1)
        panel.axhline(0, color="0.6", linewidth=0.8)
        if one.low:
            panel.fill_between(layers, one.low, one.high, color=ink.colour, alpha=0.25, linewidth=0)
        panel.plot(layers, one.mean, color=ink.colour, linestyle=ink.dash, linewidth=1.4)
        significant = one.significant or (False,) * len(one.mean)
        for marked, face in ((True, ink.colour), (False, "white")):
            chosen = [layer for layer in layers if significant[layer - 1] == marked]
            panel.plot(
                chosen,
                [one.mean[layer - 1] for layer in chosen],
                linestyle="none",
                marker=ink.marker,
                markersize=4,
                markeredgewidth=0.8,
                color=ink.colour,
                markerfacecolor=face,
            )
        panel.set_title(one.route.replace("->", " → "), fontsize=9)
        panel.set_xlabel(f"layer (n = {one.n})", fontsize=8)
        panel.tick_params(labelsize=8)
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylim(bottom, top)
    panels[0].set_ylabel("change in probability\nof the answer, %", fontsize=8)
    if title:
        figure.suptitle(title, fontsize=9)
    return figure


def route_rows(found: Sequence[RoutePanel]) -> list[dict[str, Any]]:
    """The figure's data: one row per route and layer, changes in percent.

    `low`, `high` and `significant` are None without a band. `drop`, `drop_low` and `drop_high` are
    in points among the `n_right` questions that the baseline run answers right; None without any.
    """
    return [
        {
            "route": one.route,
            "layer": layer + 1,
            "n": one.n,
            "mean": mean,
            "low": one.low[layer] if one.low else None,
            "high": one.high[layer] if one.high else None,
            "significant": one.significant[layer] if one.significant else None,
            "n_right": one.n_right,
            "drop": one.drops[layer].estimate if one.drops else None,
            "drop_low": one.drops[layer].low if one.drops else None,
            "drop_high": one.drops[layer].high if one.drops else None,
        }
        for one in found
        for layer, mean in enumerate(one.mean)
    ]


def shared_scale(found: Sequence[RoutePanel]) -> tuple[float, float]:
    """Limits of the vertical axis for all panels: multiples of 5 % that include 0 and all means.

    Bands are included down to -100 %, the largest possible loss, and up to 1.5 times the largest
    mean but at least 20 %: wide bands of few questions would flatten every curve.
    """
    means = [0.0, *(value for one in found for value in one.mean)]
    bands = [value for one in found for value in (*one.low, *one.high)]
    bottom = max(-100.0, np.floor(min([*means, *bands]) / 5) * 5)
    top = min(np.ceil(max([*means, *bands]) / 5) * 5, max(20.0, np.ceil(1.5 * max(means) / 5) * 5))
    return float(bottom), float(max(top, bottom + 5, 0))

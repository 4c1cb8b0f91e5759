"""Where does cutting a route change the answer? A panel a route over all layers, with simultaneous 95 % bands.

A band holds for all layers of its route at once (max-T by video, results/statistics), and filled markers are layers
whose change is significant in that sense. All panels share one scale, so they can be compared by eye.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mapflow.results.contract.errors import MapflowError
from mapflow.results.figures.palette import pen
from mapflow.results.report.sweeps import SweepCurve, shared_scale

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INCHES = (2.1, 2.3)
"""Of one panel: three fit a page's width."""


def route_curves(curves: Sequence[SweepCurve], title: str = "") -> Figure:
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


def route_rows(curves: Sequence[SweepCurve]) -> list[dict[str, Any]]:
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

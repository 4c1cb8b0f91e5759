"""A sweep's curves with simultaneous bands, as data and as drawings: where does cutting a route change the answer?

A band holds for all layers of its route at once (max-T by video), and a layer is marked where the change is significant
in that sense. Every route has a panel; all panels share one scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from mapflow.results.contract.errors import MapflowError
from mapflow.results.records.sweep import SweepRecord
from mapflow.results.statistics import simultaneous_bands

RESOLUTION = 5.0
"""Percent: questions whose changes differ by less do not differ for our purpose (simultaneous_bands). Layers where next to
nothing happens would otherwise widen all bands."""
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 330, 180, 44, 12, 24


@dataclass(frozen=True)
class SweepCurve:
    """Mean relative change of the plain run's answer in percent, an entry a layer from layer 1 on. `low`, `high` and
    `significant` are empty, and `note` says why, where no band can be given."""

    route: str
    n: int
    mean: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    significant: tuple[bool, ...] = ()
    note: str = ""


def sweep_curves(records: Sequence[SweepRecord]) -> list[SweepCurve]:
    """One curve a route that any question has a change for. Questions without one (left out, errors, a plain
    probability too small) count for none; n says how many do."""
    by_route: dict[str, list[SweepRecord]] = {}
    for record in records:
        if record.change_answer is not None:
            by_route.setdefault(record.route, []).append(record)
    return [_curve(route, own) for route, own in by_route.items()]


def _curve(route: str, records: Sequence[SweepRecord]) -> SweepCurve:
    change = np.array([record.change_answer for record in records], dtype=float)
    cluster = np.unique([record.video_id for record in records], return_inverse=True)[1]
    mean = tuple(change.mean(axis=0).tolist())
    try:
        found = simultaneous_bands(change, cluster, resolution=RESOLUTION)
    except MapflowError as error:
        return SweepCurve(route, len(records), mean, note=str(error))
    low, high, significant = (
        tuple(part.tolist()) for part in (found.low, found.high, found.significant)
    )
    return SweepCurve(route, len(records), mean, low, high, significant)


def sweep_svg(curve: SweepCurve, bottom: float, top: float) -> str:
    """One panel between two percentages, `bottom` < `top`; inline SVG, escaped."""
    n_layers = len(curve.mean)
    width, height = WIDTH - LEFT - 8, HEIGHT - TOP - BOTTOM

    def x(layer: int) -> float:
        return LEFT + width * (layer + 0.5) / n_layers

    def y(value: float) -> float:
        return TOP + height * (top - min(max(value, bottom), top)) / (top - bottom)

    def points(values: Sequence[float], layers: Sequence[int]) -> str:
        return " ".join(f"{x(k):.1f},{y(values[k]):.1f}" for k in layers)

    forth = list(range(n_layers))
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img">',
        f"<title>{escape(curve.route)}: mean relative change by layer</title>",
    ]
    for value in sorted({bottom, 0.0, top} if bottom <= 0 <= top else {bottom, top}):
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - 8}" y1="{y(value):.1f}" y2="{y(value):.1f}" class="axis"/>'
            f'<text x="{LEFT - 5}" y="{y(value) + 4:.1f}" text-anchor="end" class="layer">{value:.0f} %</text>'
        )
    for layer in dict.fromkeys((0, n_layers // 2, n_layers - 1)):
        parts.append(
            f'<text x="{x(layer):.1f}" y="{HEIGHT - 8}" text-anchor="middle" class="layer">{layer + 1}</text>'
        )
    if curve.low:
        band = f"{points(curve.high, forth)} {points(curve.low, forth[::-1])}"
        parts.append(f'<polygon points="{band}" class="open" opacity="0.25"/>')
    parts.append(f'<polyline points="{points(curve.mean, forth)}" class="curve"/>')
    for layer, marked in enumerate(curve.significant):
        if marked:
            parts.append(
                f'<circle cx="{x(layer):.1f}" cy="{y(curve.mean[layer]):.1f}" r="3" class="open">'
                f"<title>layer {layer + 1}: {curve.mean[layer]:+.1f} %</title></circle>"
            )
    return "\n".join([*parts, "</svg>"])


def shared_scale(curves: Sequence[SweepCurve]) -> tuple[float, float]:
    """Round percentages below and above the means and, as far as a reader can use them, the bands: a probability cannot
    lose more than all of itself, and few questions make bands that would flatten every curve. Zero is always inside."""
    means = [0.0, *(value for curve in curves for value in curve.mean)]
    bands = [value for curve in curves for value in (*curve.low, *curve.high)]
    bottom = max(-100.0, np.floor(min([*means, *bands]) / 5) * 5)
    top = min(np.ceil(max([*means, *bands]) / 5) * 5, max(20.0, np.ceil(1.5 * max(means) / 5) * 5))
    return float(bottom), float(max(top, bottom + 5, 0))

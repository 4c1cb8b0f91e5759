"""Curves of means by layer as inline SVG: the same data as the figures of `results/figures`.

All texts from data are escaped. Colours are classes (`c0`, `c1`, …), so they follow the page's
light or dark theme; curves also differ in dash.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from mapflow.results.figures.mean_curves import CurveBlock, CurvePanel, MeanCurve

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 340, 200, 46, 8, 10, 34
"""In pixels: the drawing and its margins."""
INKS = 6
"""Colours of `style.css`; they repeat."""
PALEST = 0.25
"""Opacity of the first of an ordered series of curves; the last has 1."""


def curve_names(block: CurveBlock) -> list[str]:
    """The curves of all panels, in order of first appearance: the entries of the legend."""
    return list(dict.fromkeys(name for panel in block.panels for name in panel.curves))


def block_top(block: CurveBlock) -> float:
    """The upper end of the axis that all panels share, as a round fraction; the lower end is 0."""
    curves = [curve for panel in block.panels for curve in panel.curves.values()]
    most = max((v for one in curves for v in (*one.mean, *one.high)), default=0.0)
    if most <= 0:
        return 0.01
    unit = 10.0 ** math.floor(math.log10(most))
    steps = (unit * step for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10))
    return min(1.0, next(step for step in steps if step >= most * 0.999999)) if most < 1 else 1.0


def pen_attributes(number: int, count: int, ordered: bool) -> str:
    """The attributes of curve `number` of `count`."""
    if ordered:
        opacity = PALEST + (1 - PALEST) * (number / (count - 1) if count > 1 else 1)
        return f'class="curve c0" opacity="{opacity:.2f}"'
    return f'class="curve c{number % INKS} d{number // INKS % 2}"'


def panel_svg(panel: CurvePanel, block: CurveBlock, names: Sequence[str], top: float) -> str:
    """One panel; `names` give the curves their colours, `top` ends the axis (a fraction)."""
    depth = max(len(curve.mean) for curve in panel.curves.values())
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(layer: int) -> float:
        return LEFT + width * (layer + 0.5) / depth

    def y(value: float) -> float:
        return TOP + height * (1 - min(max(value, 0.0), top) / top)

    def points(values: Sequence[float], layers: Sequence[int]) -> str:
        return " ".join(f"{x(k):.1f},{y(values[k]):.1f}" for k in layers)

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{escape(panel.title)}: {escape(block.label)}, by layer."
        f" {escape('; '.join(map(_said, panel.curves, panel.curves.values())))}</title>",
    ]
    for value in (0.0, top / 2, top):
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"'
            ' class="axis"/>'
            f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end" class="layer">'
            f"{100 * value:.3g} %</text>"
        )
    for layer in dict.fromkeys((0, depth // 2, depth - 1)):
        parts.append(
            f'<text x="{x(layer):.1f}" y="{HEIGHT - 20}" text-anchor="middle" class="layer">'
            f"{layer + 1}</text>"
        )
    parts.append(
        f'<text x="{LEFT + width / 2:g}" y="{HEIGHT - 5}" text-anchor="middle" class="layer">'
        "layer</text>"
    )
    for number, name in enumerate(names):
        if name in panel.curves:
            parts += _curve(
                panel.curves[name], points, pen_attributes(number, len(names), block.ordered), name
            )
    return "\n".join([*parts, "</svg>"])


def _curve(curve: MeanCurve, points, pen: str, name: str) -> list[str]:
    layers = list(range(len(curve.mean)))
    drawn = []
    if curve.low:
        band = f"{points(curve.high, layers)} {points(curve.low, layers[::-1])}"
        drawn.append(f'<polygon points="{band}" {pen.replace("curve ", "band ")}/>')
    drawn.append(
        f'<polyline points="{points(curve.mean, layers)}" {pen}>'
        f"<title>{escape(name)}</title></polyline>"
    )
    return drawn


def _said(name: str, curve: MeanCurve) -> str:
    """The text alternative of a curve; a table beside the panels has every number."""
    return f"{name} from {curve.mean[0]:.1%} to {curve.mean[-1]:.1%}"


def key_svg(number: int, count: int, ordered: bool) -> str:
    """The line of a curve in the legend."""
    return (
        '<svg class="key" width="26" height="10" aria-hidden="true">'
        f'<polyline points="0,5 26,5" {pen_attributes(number, count, ordered)}/></svg>'
    )

"""The page's drawings as inline SVG: a policy by layer, and the curve of one route.

All texts from data are escaped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from mapflow.results.figures.policy_diagram import PolicyDiagram
from mapflow.results.figures.route_curves import RoutePanel

CELL, ROW, LABEL, HEAD = 15, 19, 190, 20
"""Of a policy, in pixels: width of a layer, height of a row, width of its label, height above."""
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 330, 180, 44, 12, 24
"""Of a curve, in pixels: the drawing and its margins."""


def policy_svg(policy: PolicyDiagram) -> str:
    """One row per segment pair, one column per layer; empty for a policy without `flows`."""
    if not policy.flows:
        return ""
    n_layers = len(policy.flows[0][2])
    width, height = LABEL + CELL * n_layers + 8, HEAD + ROW * len(policy.flows) + 4
    parts = [
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">',
        f"<title>{escape(policy.name)}: segments that attend to each other, by layer</title>",
    ]
    for layer in range(1, n_layers + 1):
        if layer == 1 or layer % 5 == 0 or layer == n_layers:
            x = LABEL + CELL * (layer - 0.5)
            parts.append(
                f'<text x="{x:g}" y="{HEAD - 6}" text-anchor="middle" class="layer">{layer}</text>'
            )
    for row, (target, source, shares) in enumerate(policy.flows):
        y = HEAD + ROW * row
        name = f"{escape(target)} ← {escape(source)}"
        parts.append(
            f'<text x="{LABEL - 8}" y="{y + 13}" text-anchor="end">{name}</text>'
            f'<rect x="{LABEL}" y="{y + 2}" width="{CELL * n_layers}" height="{ROW - 4}"'
            ' class="closed"/>'
        )
        for first, last, share in spans(shares):
            layers = f"layers {first + 1}-{last + 1}"
            parts.append(
                f'<rect x="{LABEL + CELL * first}" y="{y + 2}" width="{CELL * (last - first + 1)}"'
                f' height="{ROW - 4}" class="open" opacity="{0.25 + 0.75 * share:.2f}">'
                f"<title>{name}, {layers}: {share:.0%} allowed</title></rect>"
            )
    return "\n".join([*parts, "</svg>"])


def spans(shares: Sequence[float]) -> Iterator[tuple[int, int, float]]:
    """Runs of layers with the same share above 0: (first, last, share), from 0, both included."""
    start = 0
    for layer in range(1, len(shares) + 1):
        if layer == len(shares) or shares[layer] != shares[start]:
            if shares[start] > 0:
                yield start, layer - 1, shares[start]
            start = layer


def route_svg(curve: RoutePanel, bottom: float, top: float) -> str:
    """The curve of one route between two percentages, `bottom` < `top`."""
    n_layers = len(curve.mean)
    width, height = WIDTH - LEFT - 8, HEIGHT - TOP - BOTTOM

    def x(layer: int) -> float:
        return LEFT + width * (layer + 0.5) / n_layers

    def y(value: float) -> float:
        return TOP + height * (top - min(max(value, bottom), top)) / (top - bottom)

    def points(values: Sequence[float], layers: Sequence[int]) -> str:
        return " ".join(f"{x(k):.1f},{y(values[k]):.1f}" for k in layers)

    layers = list(range(n_layers))
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img">',
        f"<title>{escape(curve.route)}: mean relative change by layer.{_extreme(curve)}</title>",
    ]
    for value in sorted({bottom, 0.0, top} if bottom <= 0 <= top else {bottom, top}):
        height_of_line = f"{y(value):.1f}"
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - 8}" y1="{height_of_line}" y2="{height_of_line}"'
            ' class="axis"/>'
            f'<text x="{LEFT - 5}" y="{y(value) + 4:.1f}" text-anchor="end" class="layer">'
            f"{f'{value:.0f}'.replace('-', '−')} %</text>"
        )
    for layer in dict.fromkeys((0, n_layers // 2, n_layers - 1)):
        parts.append(
            f'<text x="{x(layer):.1f}" y="{HEIGHT - 8}" text-anchor="middle" class="layer">'
            f"{'layer ' if layer == 0 else ''}{layer + 1}</text>"
        )
    if curve.low:
        band = f"{points(curve.high, layers)} {points(curve.low, layers[::-1])}"
        parts.append(f'<polygon points="{band}" class="open" opacity="0.25"/>')
    parts.append(f'<polyline points="{points(curve.mean, layers)}" class="curve"/>')
    for layer, significant in enumerate(curve.significant):
        if significant:
            parts.append(
                f'<circle cx="{x(layer):.1f}" cy="{y(curve.mean[layer]):.1f}" r="3" class="open">'
                f"<title>layer {layer + 1}: {curve.mean[layer]:+.1f} %</title></circle>"
            )
    return "\n".join([*parts, "</svg>"])


def _extreme(curve: RoutePanel) -> str:
    """The text alternative of a curve; a table beside the panels has every number."""
    layer = max(range(len(curve.mean)), key=lambda k: abs(curve.mean[k]))
    dots = [str(k + 1) for k, marked in enumerate(curve.significant) if marked]
    said = f" Largest in layer {layer + 1}: {curve.mean[layer]:+.1f} %."
    return said + (f" Significant in layers {', '.join(dots)}." if dots else "")

"""The page's drawings as inline SVG: a policy, and one curve of a sweep."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from mapflow.results.figures.policy_diagram import PolicyDiagram
from mapflow.results.figures.route_curves import RoutePanel

CELL, ROW, LABEL, HEAD = 15, 19, 190, 20
"""Pixels of a policy's drawing: width and height of a cell, width of the labels, height of the layer numbers."""
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 330, 180, 44, 12, 24
"""Pixels of a curve's drawing and of its margins."""


def policy_svg(policy: PolicyDiagram) -> str:
    """Inline SVG, escaped; empty for a policy that segments cannot show."""
    if not policy.reads:
        return ""
    n_layers = len(policy.reads[0][2])
    width, height = LABEL + CELL * n_layers + 8, HEAD + ROW * len(policy.reads) + 4
    parts = [
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">',
        f"<title>{escape(policy.name)}: who reads whom in which layer</title>",
    ]
    for layer in range(1, n_layers + 1):
        if layer == 1 or layer % 5 == 0 or layer == n_layers:
            x = LABEL + CELL * (layer - 0.5)
            parts.append(
                f'<text x="{x:g}" y="{HEAD - 6}" text-anchor="middle" class="layer">{layer}</text>'
            )
    for row, (target, source, shares) in enumerate(policy.reads):
        y = HEAD + ROW * row
        parts.append(
            f'<text x="{LABEL - 8}" y="{y + 13}" text-anchor="end">{escape(target)} ← {escape(source)}</text>'
            f'<rect x="{LABEL}" y="{y + 2}" width="{CELL * n_layers}" height="{ROW - 4}" class="closed"/>'
        )
        for first, last, share in spans(shares):
            parts.append(
                f'<rect x="{LABEL + CELL * first}" y="{y + 2}" width="{CELL * (last - first + 1)}"'
                f' height="{ROW - 4}" class="open" opacity="{0.25 + 0.75 * share:.2f}">'
                f"<title>{escape(target)} ← {escape(source)}, layers {first + 1}-{last + 1}: {share:.0%} open</title>"
                "</rect>"
            )
    return "\n".join([*parts, "</svg>"])


def spans(shares: Sequence[float]) -> Iterator[tuple[int, int, float]]:
    """Stretches of layers with one share above 0: (first, last, share), 0-based and inclusive."""
    start = 0
    for layer in range(1, len(shares) + 1):
        if layer == len(shares) or shares[layer] != shares[start]:
            if shares[start] > 0:
                yield start, layer - 1, shares[start]
            start = layer


def route_svg(curve: RoutePanel, bottom: float, top: float) -> str:
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

"""A policy as a drawing: a row for each "target reads source", a column a layer, filled where it may."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from mapflow.results.report.contents import PolicyDiagram

CELL, ROW, LABEL, TOP = 15, 19, 190, 20


def policy_svg(policy: PolicyDiagram) -> str:
    """Inline SVG, escaped; empty for a policy that segments cannot show."""
    if not policy.reads:
        return ""
    n_layers = len(policy.reads[0][2])
    width, height = LABEL + CELL * n_layers + 8, TOP + ROW * len(policy.reads) + 4
    parts = [
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">',
        f"<title>{escape(policy.name)}: who reads whom in which layer</title>",
    ]
    for layer in range(1, n_layers + 1):
        if layer == 1 or layer % 5 == 0 or layer == n_layers:
            x = LABEL + CELL * (layer - 0.5)
            parts.append(
                f'<text x="{x:g}" y="{TOP - 6}" text-anchor="middle" class="layer">{layer}</text>'
            )
    for row, (target, source, shares) in enumerate(policy.reads):
        y = TOP + ROW * row
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

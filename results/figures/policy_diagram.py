"""Draws which segments attend to which in each layer, one panel per intervention.

Rows are pairs of segments, columns are layers. A cell is the darker, the larger the share of its
segment pairs that may attend, so the figure also works in black and white.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mapflow.results.contract.errors import MapflowError
from mapflow.results.figures.panels import wrapped

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CELL = 0.17
"""Height of a row in inches; columns are a bit narrower."""


@dataclass(frozen=True)
class PolicyDiagram:
    """The attention between segments, layer by layer.

    expression: the intervention in full.
    flows: (target, source, shares); entry l of `shares` is the share of (target, source) segment
        pairs that may attend in layer l + 1, from 0 to 1.
    paths: the reachability certificate, one sentence per path.
    note: what the diagram cannot show.
    """

    name: str
    expression: str
    flows: Sequence[tuple[str, str, Sequence[float]]] = ()
    paths: Sequence[str] = ()
    note: str = ""


def policy_diagram(policies: Sequence[PolicyDiagram]) -> Figure:
    """Panels below each other. Policies without `flows` (random blocking alone) are left out.

    Raises MapflowError if no policy remains.
    """
    drawn = [policy for policy in policies if policy.flows]
    if not drawn:
        raise MapflowError("no intervention cuts attention between segments: nothing to draw")
    from matplotlib.colors import to_rgba
    from matplotlib.figure import Figure

    deepest = max(len(policy.flows[0][2]) for policy in drawn)
    heights = [CELL * len(policy.flows) + 0.5 for policy in drawn]
    figure = Figure(
        figsize=(2.0 + 0.13 * max(deepest, 16), sum(heights) + 0.3), layout="constrained"
    )
    grid = figure.subplots(len(drawn), 1, squeeze=False, height_ratios=heights)[:, 0]
    for policy, panel in zip(drawn, grid, strict=True):
        for row, (_, _, shares) in enumerate(policy.flows):
            for layer, share in enumerate(shares):
                panel.bar(
                    layer + 1,
                    0.84,
                    width=0.92,
                    bottom=row - 0.42,
                    facecolor=to_rgba("#00466e", float(share)),
                    edgecolor="0.75",
                    linewidth=0.4,
                )
        panel.set_ylim(len(policy.flows) - 0.5, -0.5)
        panel.set_xlim(0.4, deepest + 0.6)
        panel.set_yticks(
            range(len(policy.flows)),
            [f"{target} ← {source}" for target, source, _ in policy.flows],
            parse_math=False,
        )
        panel.tick_params(labelsize=7, length=0)
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.spines[:].set_visible(False)
        panel.set_title(wrapped(policy.name, 60), fontsize=8, parse_math=False)
    grid[-1].set_xlabel("layer (dark: attends; white: cut)", fontsize=8)
    return figure


def policy_rows(policies: Sequence[PolicyDiagram]) -> list[dict[str, Any]]:
    """The figure's data: one row per intervention, segment pair and layer.

    `open` is the share of pairs of such segments that may attend, from 0 to 1.
    """
    return [
        {
            "intervention": policy.name,
            "target": target,
            "source": source,
            "layer": layer,
            "open": float(np.round(share, 6)),
        }
        for policy in policies
        for target, source, shares in policy.flows
        for layer, share in enumerate(shares, 1)
    ]

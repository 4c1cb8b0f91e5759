"""Draws the attention edges that an intervention keeps: masks in chosen layers, shares by layer.

A prompt has thousands of positions, so the mask is drawn in blocks. The colour of a block shows the
share of its causal edges that are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from mapflow.results.contract.errors import MapflowError
from mapflow.results.figures.panels import add_legend, panels, pen, wrapped

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INCHES = 2.5
"""Width and height of one map."""


@dataclass(frozen=True)
class EdgeMap:
    """One intervention on one prompt.

    length: positions of the prompt; block: positions per side of a block.
    segments: (name, start, stop) of the prompt's parts in order, as half-open ranges.
    layers: the layers whose masks are drawn, from 1.
    kept: share of the causal edges of each block that are kept; NaN above the diagonal.
    by_layer: share of edges kept in each layer of the model.
    """

    intervention: str
    length: int
    block: int
    segments: tuple[tuple[str, int, int], ...]
    layers: tuple[int, ...]
    kept: Float[np.ndarray, "chosen query key"]
    by_layer: tuple[float, ...]


def edge_map(maps: Sequence[EdgeMap]) -> Figure:
    """One row per intervention, one column per chosen layer. Raises MapflowError without maps."""
    if not maps:
        raise MapflowError("an edge map needs at least one intervention")
    from matplotlib.figure import Figure

    columns = max(len(one.layers) for one in maps)
    figure = Figure(
        figsize=(INCHES * columns + 1.3, (INCHES + 0.5) * len(maps) + 0.2), layout="constrained"
    )
    grid = figure.subplots(len(maps), columns, squeeze=False)
    image = None
    for one, row in zip(maps, grid, strict=True):
        for spare in row[len(one.layers) :]:
            spare.remove()
        for number, (layer, shares, panel) in enumerate(
            zip(one.layers, one.kept, row, strict=False)
        ):
            end = one.block * len(shares)
            image = panel.imshow(
                shares,
                cmap="cividis_r",
                vmin=0,
                vmax=1,
                extent=(0, end, end, 0),
                interpolation="nearest",
                aspect="auto",
            )
            panel.set_xlim(0, one.length)
            panel.set_ylim(one.length, 0)
            for _, first, _ in one.segments[1:]:
                panel.plot([first, first], [first, one.length], color="0.35", linewidth=0.3)
                panel.plot([0, first], [first, first], color="0.35", linewidth=0.3)
            # short parts, such as the end of the template, get no name
            named = [s for s in one.segments if s[2] - s[1] >= one.length / 30]
            ticks = [(first + last) / 2 for _, first, last in named]
            panel.set_xticks(
                ticks, [s[0] for s in named], rotation=90, fontsize=6, parse_math=False
            )
            panel.set_yticks(
                ticks, [s[0] if number == 0 else "" for s in named], fontsize=6, parse_math=False
            )
            panel.tick_params(length=0)
            panel.spines[["top", "right"]].set_visible(False)
            panel.set_title(
                f"layer {layer}: {one.by_layer[layer - 1]:.1%} of edges kept", fontsize=8
            )
        row[0].set_ylabel(
            f"{wrapped(one.intervention)}\nquery position", fontsize=8, parse_math=False
        )
    for panel in grid[-1][: len(maps[-1].layers)]:
        panel.set_xlabel("key position", fontsize=8)
    assert image is not None
    bar = figure.colorbar(image, ax=list(figure.axes), fraction=0.05, pad=0.02, shrink=0.6)
    bar.set_label("share of a block's causal edges kept", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return figure


def edge_rows(maps: Sequence[EdgeMap]) -> list[dict[str, Any]]:
    """The data of the maps: one row per intervention, layer and block with causal edges.

    Positions count from 0; `query_last` and `key_last` are included in the block.
    """
    return [
        {
            "intervention": one.intervention,
            "layer": layer,
            "query_first": query * one.block,
            "query_last": min((query + 1) * one.block, one.length) - 1,
            "key_first": key * one.block,
            "key_last": min((key + 1) * one.block, one.length) - 1,
            "kept": round(float(shares[query, key]), 6),
        }
        for one in maps
        for layer, shares in zip(one.layers, one.kept, strict=True)
        for query in range(len(shares))
        for key in range(query + 1)
    ]


def kept_edges(maps: Sequence[EdgeMap]) -> Figure:
    """The share of edges kept in each layer, one line per intervention."""
    if not maps:
        raise MapflowError("the kept edges need at least one intervention")
    figure, ((panel,),) = panels([["edges kept by layer"]])
    figure.set_size_inches(5, 3)
    handles = []
    for number, one in enumerate(maps):
        ink = pen(number)
        layers = range(1, len(one.by_layer) + 1)
        handles += panel.plot(
            layers,
            [100 * share for share in one.by_layer],
            color=ink.colour,
            linestyle=ink.dash,
            marker=ink.marker,
            markersize=3.5,
            drawstyle="steps-mid",
        )
    panel.set_ylim(0, 104)
    panel.set_xlabel("layer", fontsize=8)
    panel.set_ylabel("causal edges kept, %", fontsize=8)
    add_legend(figure, handles, [one.intervention for one in maps])
    return figure


def kept_rows(maps: Sequence[EdgeMap]) -> list[dict[str, Any]]:
    """One row per intervention and layer; shares from 0 to 1."""
    return [
        {"intervention": one.intervention, "layer": layer, "kept": share}
        for one in maps
        for layer, share in enumerate(one.by_layer, 1)
    ]

"""The masks of an intervention in a few layers, reduced to the small arrays that figures draw.

Masks are those that the attention function applies (`Compiled.token_mask`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mapflow.model_adapters.interventions import Compiled, TokenLayout
from mapflow.model_adapters.interventions.language.layout import SELECTORS
from mapflow.results.contract.errors import MapflowError
from mapflow.results.figures import EdgeMap

BLOCKS = 96
"""Blocks per side of a map, at most."""
CHOSEN = 4
"""Layers drawn by default, at most."""


def compiled_edge_map(
    name: str, compiled: Compiled, layers: Sequence[int] = (), blocks: int = BLOCKS
) -> EdgeMap:
    """The map of a compiled intervention.

    layers: from 1; by default up to CHOSEN of those where the mask changes.
    blocks: blocks per side, at most.

    Raises MapflowError for a layer that the model does not have.
    """
    for layer in layers:
        if not 1 <= layer <= compiled.n_layers:
            raise MapflowError(f"layer {layer} is not one of the model's {compiled.n_layers}")
    chosen = tuple(layers) or changing_layers(compiled)
    block = -(-len(compiled.layout) // blocks)
    kept = compiled.edges_by_layer.astype("float32") / compiled.total_by_layer.astype("float32")
    return EdgeMap(
        name,
        len(compiled.layout),
        block,
        named_runs(compiled.layout),
        chosen,
        torch.stack(
            [kept_by_block(compiled.token_mask(layer - 1), block) for layer in chosen]
        ).numpy(),
        tuple(kept.tolist()),
    )


def changing_layers(compiled: Compiled) -> tuple[int, ...]:
    """Layers (from 1) whose mask differs from that of the layer before, CHOSEN at most."""
    keys = [
        (
            compiled.allowed[layer].tobytes(),
            compiled.budget[layer] if compiled.budget else 0,
        )
        for layer in range(compiled.n_layers)
    ]
    first = [layer + 1 for layer, key in enumerate(keys) if not layer or key != keys[layer - 1]]
    if len(first) <= CHOSEN:
        return tuple(first)
    return tuple(first[round(i * (len(first) - 1) / (CHOSEN - 1))] for i in range(CHOSEN))


def kept_by_block(mask: Bool[Tensor, "n n"], block: int) -> Float[Tensor, "query key"]:
    """Share of each block's causal edges that the mask keeps; NaN in blocks above the diagonal."""
    n = len(mask)
    which = torch.arange(n) // block
    member = torch.nn.functional.one_hot(which).double()
    causal = torch.ones(n, n, dtype=torch.bool).tril()

    def count(edges: Bool[Tensor, "n n"]) -> Float[Tensor, "query key"]:
        return member.T @ edges.double() @ member

    return count(mask & causal) / count(causal)  # 0 / 0 above the diagonal is NaN


def named_runs(layout: TokenLayout) -> tuple[tuple[str, int, int], ...]:
    """The parts of the prompt in order, as (name, start, stop): half-open ranges of positions.

    Each frame is a part; stem, options and labels together are the question.
    """
    names = [_part(str(s), s.kind) for s in layout.segments]
    runs, position = [], 0
    for name, own in groupby(names[segment] for segment in layout.segment_of.tolist()):
        size = len(list(own))
        runs.append((name, position, position + size))
        position += size
    return tuple(runs)


def _part(name: str, kind: str) -> str:
    return "question" if kind in SELECTORS["question"] else name

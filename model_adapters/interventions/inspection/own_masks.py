"""The masks that a model makes for one prompt: the edges that exist before any cut."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from mapflow.model_adapters.interventions.inspection.layers import Layers
from mapflow.model_adapters.interventions.inspection.tail import replaced_forward
from mapflow.model_adapters.interventions.language.own_edges import OwnEdges


def own_edges(
    core: PreTrainedModel,
    layers: nn.ModuleList,
    kind: Layers,
    embeds: Float[Tensor, "1 n hidden"],
    keywords: Mapping[str, Any],
) -> OwnEdges | None:
    """The edges of every layer for `core(inputs_embeds=embeds, **keywords)`.

    None for causal attention in all layers. The layers record their masks and do nothing else.
    Layers without attention have no edges.
    """
    found: list[Tensor | None] = []

    def record(hidden_states: Tensor, *_: Any, attention_mask: Any = None, **__: Any) -> Any:
        found.append(attention_mask)
        return hidden_states if kind.extras is None else (hidden_states, *[None] * kind.extras)

    run: Any = core
    with ExitStack() as stack:
        for layer in layers:
            stack.enter_context(replaced_forward(layer, record))
        run(inputs_embeds=embeds, use_cache=False, **keywords)
    if len(kind.attends) < len(found):
        none = embeds.new_zeros(1, 1, *[embeds.shape[1]] * 2, dtype=torch.bool)
        found = [one if n in kind.attends else none for n, one in enumerate(found)]
    if all(mask is None for mask in found):
        return None
    shared = {id(mask): mask[0, 0] for mask in found if mask is not None}
    return OwnEdges([None if mask is None else shared[id(mask)] for mask in found])

"""The attention function: transformers' own sdpa without the edges that the active masks cut.

It is registered with `AttentionInterface` under two names, `mapflow` (sdpa) and `mapflow_eager`
(the float32 reference implementation). It is also registered with `AttentionMaskInterface`;
otherwise transformers drops padding masks without a warning. A module's layer is its `layer_idx`;
`apply` sets the active masks of this thread or task. Without active masks, `mapflow` is sdpa.

No model code is patched: `set_attn_implementation` selects the function for the language model
alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from mapflow.model_adapters.interventions.kernels.dense_attention import masked_attention
from mapflow.model_adapters.interventions.kernels.edges import DenseEdges, Edges, LayerMasks
from mapflow.model_adapters.interventions.kernels.grouped_attention import (
    GroupedEdges,
    grouped_attention,
)
from mapflow.model_adapters.interventions.kernels.reference import eager_attention

SDPA = "mapflow"
EAGER = "mapflow_eager"

_active: ContextVar[LayerMasks | None] = ContextVar("mapflow_active_masks", default=None)


@contextmanager
def apply(masks: LayerMasks | None) -> Iterator[None]:
    """Makes `masks` active for all layers with our attention function, until the block is left."""
    token = _active.set(masks)
    try:
        yield
    finally:
        _active.reset(token)


def active_edges(
    module: nn.Module,
    query: Float[Tensor, "batch heads query dim"],
    key: Float[Tensor, "batch kv_heads key dim"],
    padding: Bool[Tensor, "batch head query key"] | None,
) -> Edges | None:
    """The active masks' edges joined with the model's own mask; None where nothing is cut."""
    masks = _active.get()
    edges = masks.mask(_layer(module), query.shape[2], key.shape[2]) if masks else None
    if edges is None:
        return None
    # a model spread over several devices runs most layers elsewhere than its embeddings
    edges = edges.to(query.device)
    return edges if padding is None else edges & padding


def sdpa_attention(
    module: nn.Module,
    query: Float[Tensor, "batch heads query dim"],
    key: Float[Tensor, "batch kv_heads key dim"],
    value: Float[Tensor, "batch kv_heads key dim"],
    attention_mask: Bool[Tensor, "batch head query key"] | None,
    **options: Any,
) -> tuple[Float[Tensor, "batch query heads dim"], None]:
    """sdpa under the active masks. Query positions without any key give zeros."""
    edges = active_edges(module, query, key, attention_mask)
    if isinstance(edges, GroupedEdges):
        return grouped_attention(module, query, key, value, edges, **options), None
    if isinstance(edges, DenseEdges):
        return masked_attention(module, query, key, value, edges, **options), None
    return sdpa_attention_forward(module, query, key, value, attention_mask, **options)


def reference_attention(
    module: nn.Module,
    query: Float[Tensor, "batch heads query dim"],
    key: Float[Tensor, "batch kv_heads key dim"],
    value: Float[Tensor, "batch kv_heads key dim"],
    attention_mask: Bool[Tensor, "batch head query key"] | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Float[Tensor, "batch query heads dim"], Float[Tensor, "batch heads query key"]]:
    """The reference implementation under the active masks; also returns the attention weights."""
    edges = active_edges(module, query, key, attention_mask)
    return eager_attention(query, key, value, edges.allowed if edges else attention_mask, scaling)


def _layer(module: nn.Module) -> int:
    layer = getattr(module, "layer_idx", None)
    if not isinstance(layer, int):
        raise TypeError(
            f"{type(module).__name__} has no layer_idx, so no per-layer intervention can reach it"
        )
    return layer


AttentionInterface.register(SDPA, sdpa_attention)
AttentionInterface.register(EAGER, reference_attention)
AttentionMaskInterface.register(SDPA, sdpa_mask)
AttentionMaskInterface.register(EAGER, sdpa_mask)

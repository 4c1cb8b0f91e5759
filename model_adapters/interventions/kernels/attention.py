"""The attention function: transformers' own sdpa, minus the edges that the active plan cuts in this layer.

Registered with `AttentionInterface` under two names, `mapflow` (sdpa) and `mapflow_eager` (the float32 oracle), and
with `AttentionMaskInterface`, without which transformers silently drops padding masks. A module's layer is its
`layer_idx`; the plan is whatever `apply` made active in this thread or task. Without a plan, `mapflow` *is* sdpa.

No model code is patched: `set_attn_implementation` selects the function for the language model alone.
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
from mapflow.model_adapters.interventions.kernels.edges import Edges, LayerMasks
from mapflow.model_adapters.interventions.kernels.grouped_attention import (
    GroupedEdges,
    grouped_attention,
)
from mapflow.model_adapters.interventions.kernels.reference import eager_attention

SDPA = "mapflow"
EAGER = "mapflow_eager"

_active: ContextVar[LayerMasks | None] = ContextVar("mapflow_active_plan", default=None)


@contextmanager
def apply(plan: LayerMasks | None) -> Iterator[None]:
    """Within this context, layers with our attention function follow `plan`; always undone, also by an exception."""
    token = _active.set(plan)
    try:
        yield
    finally:
        _active.reset(token)


def cut_edges(
    module: nn.Module,
    query: Float[Tensor, "batch heads query dim"],
    key: Float[Tensor, "batch kv_heads key dim"],
    padding: Bool[Tensor, "batch head query key"] | None,
) -> Edges | None:
    """The active plan's edges joined with the model's own mask; None where the plan cuts nothing here."""
    plan = _active.get()
    edges = plan.mask(_layer(module), query.shape[2], key.shape[2]) if plan else None
    if edges is None:
        return None
    edges = edges.to(
        query.device
    )  # a model spread over devices runs its layers elsewhere than the embeddings
    return edges if padding is None else edges & padding


def sdpa_attention(
    module: nn.Module,
    query: Float[Tensor, "batch heads query dim"],
    key: Float[Tensor, "batch kv_heads key dim"],
    value: Float[Tensor, "batch kv_heads key dim"],
    attention_mask: Bool[Tensor, "batch head query key"] | None,
    **options: Any,
) -> tuple[Float[Tensor, "batch query heads dim"], None]:
    """sdpa under the active plan. Rows without any key give zeros (design.md, Interventions)."""
    edges = cut_edges(module, query, key, attention_mask)
    if edges is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    if isinstance(edges, GroupedEdges):
        return grouped_attention(module, query, key, value, edges, **options), None
    return masked_attention(module, query, key, value, edges, **options), None


def reference_attention(
    module: nn.Module,
    query: Float[Tensor, "batch heads query dim"],
    key: Float[Tensor, "batch kv_heads key dim"],
    value: Float[Tensor, "batch kv_heads key dim"],
    attention_mask: Bool[Tensor, "batch head query key"] | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Float[Tensor, "batch query heads dim"], Float[Tensor, "batch heads query key"]]:
    """The float32 oracle under the active plan; also returns the attention weights."""
    edges = cut_edges(module, query, key, attention_mask)
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

"""The attention function: transformers' own sdpa without the edges that the active masks cut.

It is registered with `AttentionInterface` under two names, `mapflow` (sdpa) and `mapflow_eager`
(the float32 reference implementation). It is also registered with `AttentionMaskInterface`;
otherwise transformers drops padding masks without a warning. A module's layer is its `layer_idx`;
`apply` sets the active masks of this thread or task. Without active masks, `mapflow` is sdpa.

No model code is patched: `set_attn_implementation` selects the function for the language model
alone.

What a model passes besides queries, keys, values and mask is known by name, or refused. Score caps
and sinks, which sdpa does not have, run by the reference implementation, some queries at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from jaxtyping import Bool, Float, Shaped
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
from mapflow.results.contract.errors import MapflowError

SDPA = "mapflow"
EAGER = "mapflow_eager"

SCORES = ("softcap", "s_aux")
"""Options that change the weights: a bound of the scores (Gemma 2), sinks (GPT-OSS)."""

NO_EFFECT = {
    "dropout",
    "scaling",
    "is_causal",
    "sliding_window",
    "position_ids",
    "cache_position",
    "use_cache",
    "return_dict",
    "logits_to_keep",
    "output_router_logits",
    "output_attentions",
    "output_hidden_states",
}
"""Options that sdpa applies too, or that change no weight: a window is in the model's own mask."""

QUERIES_AT_ONCE = 256
"""Queries whose scores over all keys, for every head, are held at the same time."""

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
    padding: Bool[Tensor, "#batch #head query key"] | None,
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
    value: Float[Tensor, "batch kv_heads key value_dim"],
    attention_mask: Shaped[Tensor, "#batch #heads query key"] | None,
    **options: Any,
) -> tuple[Float[Tensor, "batch query heads value_dim"], None]:
    """sdpa under the active masks. Query positions without any key give zeros.

    Raises MapflowError for options and masks that it does not know.
    """
    scores = check_options(module, options, attention_mask)
    edges = active_edges(module, query, key, attention_mask)
    if edges is not None and attention_mask is None and query.shape[2] > 1:
        _check_causal(module, options)
    if any(one is not None for one in scores):
        allowed = edges.allowed if edges else attention_mask
        return _in_parts(query, key, value, allowed, options.get("scaling"), *scores), None
    if isinstance(edges, GroupedEdges):
        return grouped_attention(module, query, key, value, edges, **options), None
    if isinstance(edges, DenseEdges):
        return masked_attention(module, query, key, value, edges, **options), None
    return sdpa_attention_forward(module, query, key, value, attention_mask, **options)


def reference_attention(
    module: nn.Module,
    query: Float[Tensor, "batch heads query dim"],
    key: Float[Tensor, "batch kv_heads key dim"],
    value: Float[Tensor, "batch kv_heads key value_dim"],
    attention_mask: Shaped[Tensor, "#batch #heads query key"] | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Float[Tensor, "batch query heads value_dim"], Float[Tensor, "batch heads query key"]]:
    """The reference implementation under the active masks; also returns the attention weights.

    Raises as `sdpa_attention`.
    """
    scores = check_options(module, options, attention_mask)
    edges = active_edges(module, query, key, attention_mask)
    allowed = edges.allowed if edges else attention_mask
    return eager_attention(query, key, value, allowed, scaling, *scores)


def check_options(
    module: nn.Module, options: Mapping[str, Any], attention_mask: Tensor | None
) -> tuple[float | None, Float[Tensor, " heads"] | None]:
    """The bound of the scores and the sinks, None where a model has none.

    Raises MapflowError for an option of another name that is not None: dropping it could change
    the weights. Also for a mask that is more than a choice of keys (ALiBi, relative positions).
    """
    unknown = sorted(
        name
        for name, value in options.items()
        if value is not None and name not in NO_EFFECT and name not in SCORES
    )
    if unknown:
        raise MapflowError(
            f"{type(module).__name__} passes {', '.join(map(repr, unknown))} to its attention"
            " function, which interventions do not cover: this model cannot be run"
        )
    if attention_mask is not None and attention_mask.dtype != torch.bool:
        raise MapflowError(
            f"{type(module).__name__} adds numbers to its attention scores (a mask of"
            f" {str(attention_mask.dtype).removeprefix('torch.')}), which interventions do not"
            " cover: this model cannot be run"
        )
    sinks = options.get("s_aux")
    if sinks is not None and sinks.ndim != 1:
        raise MapflowError(
            f"{type(module).__name__} has attention sinks of shape {tuple(sinks.shape)}, not one"
            " for each head: this model cannot be run"
        )
    return options.get("softcap"), sinks


def _check_causal(module: nn.Module, options: Mapping[str, Any]) -> None:
    causal = options.get("is_causal")
    if not (getattr(module, "is_causal", True) if causal is None else causal):
        raise MapflowError(
            f"{type(module).__name__} attends to later positions, too; cuts assume causal"
            " attention: this model cannot be run"
        )


def _in_parts(
    query: Float[Tensor, "batch heads query dim"],
    key: Float[Tensor, "batch kv_heads key dim"],
    value: Float[Tensor, "batch kv_heads key value_dim"],
    allowed: Bool[Tensor, "#batch #heads query key"] | None,
    scaling: float | None,
    softcap: float | None,
    sinks: Float[Tensor, " heads"] | None,
) -> Float[Tensor, "batch query heads value_dim"]:
    """The reference implementation, so many queries at a time that their scores fit in memory."""
    n_queries, n_keys = query.shape[2], key.shape[2]
    position = torch.arange(n_keys, device=query.device)
    outputs = []
    for start in range(0, n_queries, QUERIES_AT_ONCE):
        rows = slice(start, start + QUERIES_AT_ONCE)
        if allowed is None:
            mask = (position <= position[n_keys - n_queries :][rows, None])[None, None]
        else:
            mask = allowed[:, :, rows]
        output, _ = eager_attention(query[:, :, rows], key, value, mask, scaling, softcap, sinks)
        outputs.append(output)
    return torch.cat(outputs, 1)


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

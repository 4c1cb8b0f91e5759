"""Attention weights of chosen query positions over all keys, in every layer, under an intervention.

The run is an ordinary one. A third attention function, `mapflow_rows`, computes the output of
`mapflow` and, for the chosen positions alone, the weights of the reference implementation under
the same cuts. So no head ever holds the weights of all queries and keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from mapflow.model_adapters.interventions.execution.decoder import Decoder
from mapflow.model_adapters.interventions.execution.decoder_inputs import DecoderInputs
from mapflow.model_adapters.interventions.kernels.attention import (
    SDPA,
    active_edges,
    check_options,
    sdpa_attention,
)
from mapflow.model_adapters.interventions.kernels.reference import eager_attention
from mapflow.model_adapters.interventions.language.intervention import Compiled

ROWS = "mapflow_rows"

AT_ONCE = 64
"""Query positions whose weights, for every head, are held at the same time."""


@dataclass(frozen=True)
class _Reading:
    positions: Int[Tensor, " position"]
    by_head: bool = False
    layers: list[Float[Tensor, "*head key"]] = field(default_factory=list)


_active: ContextVar[_Reading | None] = ContextVar("mapflow_active_reading", default=None)


@torch.inference_mode()
def attention_weights(
    decoder: Decoder,
    inputs: DecoderInputs,
    compiled: Compiled,
    positions: Int[Tensor, " position"],
    *,
    by_head: bool = False,
) -> Float[Tensor, "depth *head key"]:
    """The weight of every key in each layer that runs: the mean over `positions` and over heads.

    `by_head` keeps the heads apart.

    Float32 on the CPU. A layer's weights sum to 1, or to less where the cuts leave some of the
    positions without any key, and where a sink (GPT-OSS) takes its share.
    """
    reading = _Reading(positions, by_head)
    with _reporting(decoder, reading):
        decoder.answer_logits([inputs], [[compiled]])
    return torch.stack(reading.layers)


@contextmanager
def _reporting(decoder: Decoder, reading: _Reading) -> Iterator[None]:
    """The decoder's layers report to `reading` until the block is left."""
    before = decoder.core.config._attn_implementation or SDPA
    token = _active.set(reading)
    decoder.core.set_attn_implementation(ROWS)
    try:
        yield
    finally:
        decoder.core.set_attn_implementation(before)
        _active.reset(token)


def recording_attention(
    module: nn.Module,
    query: Float[Tensor, "batch heads query dim"],
    key: Float[Tensor, "batch kv_heads key dim"],
    value: Float[Tensor, "batch kv_heads key value_dim"],
    attention_mask: Shaped[Tensor, "#batch #heads query key"] | None,
    **options: Any,
) -> tuple[Float[Tensor, "batch query heads value_dim"], None]:
    """`sdpa_attention`, which also records the weights of the active reading's positions."""
    reading = _active.get()
    if reading is not None:
        scores = check_options(module, options, attention_mask)
        edges = active_edges(module, query, key, attention_mask)
        allowed = edges.allowed if edges else attention_mask
        positions, scaling = reading.positions.to(query.device), options.get("scaling")
        by_head = reading.by_head
        weights = _mean_weights(query, key, value, allowed, positions, scaling, scores, by_head)
        reading.layers.append(weights.cpu())
    return sdpa_attention(module, query, key, value, attention_mask, **options)


def _mean_weights(
    query: Float[Tensor, "one heads n dim"],
    key: Float[Tensor, "one kv_heads n dim"],
    value: Float[Tensor, "one kv_heads n value_dim"],
    allowed: Bool[Tensor, "#one #heads n n"] | None,
    positions: Int[Tensor, " position"],
    scaling: float | None,
    scores: tuple[float | None, Float[Tensor, " heads"] | None],
    by_head: bool,
) -> Float[Tensor, "*heads n"]:
    """`allowed` None means causal attention."""
    position = torch.arange(key.shape[2], device=key.device)
    n, n_heads = key.shape[2], query.shape[1]
    total = torch.zeros((n_heads, n) if by_head else (n,), device=key.device)
    for some in positions.split(AT_ONCE):
        mask = (position <= some[:, None])[None, None] if allowed is None else allowed[:, :, some]
        _, weights = eager_attention(query[:, :, some], key, value, mask, scaling, *scores)
        total += weights.sum((0, 2)) if by_head else weights.mean(1).sum((0, 1))
    return total / len(positions)


AttentionInterface.register(ROWS, recording_attention)
AttentionMaskInterface.register(ROWS, sdpa_mask)

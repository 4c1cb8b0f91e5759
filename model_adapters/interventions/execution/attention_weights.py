"""What chosen rows read: their attention weights over all keys, in every layer of one run under an intervention.

The run is the ordinary one: a third attention function, `mapflow_rows`, computes `mapflow`'s output and besides, for the
chosen rows alone, the oracle's float32 weights under the same cuts. So no mask or weight of all rows × all keys is
ever made for a head. Knows no question and no file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from mapflow.model_adapters.interventions.execution.decoder import Decoder
from mapflow.model_adapters.interventions.execution.decoder_inputs import DecoderInputs
from mapflow.model_adapters.interventions.kernels.attention import SDPA, cut_edges, sdpa_attention
from mapflow.model_adapters.interventions.kernels.reference import eager_attention
from mapflow.model_adapters.interventions.language.intervention import Compiled
from mapflow.results.contract.errors import MapflowError

ROWS = "mapflow_rows"

ROWS_AT_ONCE = 64  # whose weights, for every head, are held at the same time

OTHER_WEIGHTS = ("softcap", "s_aux")
"""Arguments of models whose weights are no plain softmax of the scores."""


@dataclass(frozen=True)
class _Reading:
    rows: Int[Tensor, " row"]
    layers: list[Float[Tensor, " key"]] = field(default_factory=list)


_active: ContextVar[_Reading | None] = ContextVar("mapflow_active_reading", default=None)


@torch.inference_mode()
def attention_weights(
    decoder: Decoder, inputs: DecoderInputs, compiled: Compiled, rows: Int[Tensor, " row"]
) -> Float[Tensor, "depth key"]:
    """Mean weight over all heads and `rows` (positions in the prompt) of every key, in each layer that runs, in float32 on
    the CPU: a layer's weights sum to 1, or to less where the cuts leave some of the rows without any key.

    Raises MapflowError for a model whose attention weights are no plain softmax of its scores.
    """
    reading = _Reading(rows)
    with _reporting(decoder, reading):
        decoder.answer_logits([inputs], [[compiled]])
    return torch.stack(reading.layers)


@contextmanager
def _reporting(decoder: Decoder, reading: _Reading) -> Iterator[None]:
    """The decoder's layers report to `reading`; undone also by an exception."""
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
    value: Float[Tensor, "batch kv_heads key dim"],
    attention_mask: Bool[Tensor, "batch head query key"] | None,
    **options: Any,
) -> tuple[Float[Tensor, "batch query heads dim"], None]:
    """`sdpa_attention`, which also notes the weights of the active reading's rows."""
    reading = _active.get()
    if reading is not None:
        unusual = [name for name in OTHER_WEIGHTS if options.get(name) is not None]
        if unusual:
            raise MapflowError(
                f"{type(module).__name__} changes its attention weights by {unusual[0]!r}, which reading them does not cover"
            )
        edges = cut_edges(module, query, key, attention_mask)
        allowed = edges.allowed if edges else attention_mask
        rows = reading.rows.to(query.device)
        reading.layers.append(
            _mean_weights(query, key, value, allowed, rows, options.get("scaling")).cpu()
        )
    return sdpa_attention(module, query, key, value, attention_mask, **options)


def _mean_weights(
    query: Float[Tensor, "one heads n dim"],
    key: Float[Tensor, "one kv_heads n dim"],
    value: Float[Tensor, "one kv_heads n dim"],
    allowed: Bool[Tensor, "#one #heads n n"] | None,
    rows: Int[Tensor, " row"],
    scaling: float | None,
) -> Float[Tensor, " n"]:
    """`allowed` None: causal."""
    position = torch.arange(key.shape[2], device=key.device)
    total = torch.zeros(key.shape[2], device=key.device)
    for some in rows.split(ROWS_AT_ONCE):
        seen = (position <= some[:, None])[None, None] if allowed is None else allowed[:, :, some]
        _, weights = eager_attention(query[:, :, some], key, value, seen, scaling)
        total += weights.mean(1).sum((0, 1))
    return total / len(rows)


AttentionInterface.register(ROWS, recording_attention)
AttentionMaskInterface.register(ROWS, sdpa_mask)

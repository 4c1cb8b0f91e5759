"""The reference implementation of attention in float32, which every fast path must equal."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def eager_attention(
    query: Float[Tensor, "batch heads query dim"],
    key: Float[Tensor, "batch kv_heads key dim"],
    value: Float[Tensor, "batch kv_heads key value_dim"],
    allowed: Bool[Tensor, "#batch #heads query key"] | None = None,
    scaling: float | None = None,
    softcap: float | None = None,
    sinks: Float[Tensor, " heads"] | None = None,
) -> tuple[Float[Tensor, "batch query heads value_dim"], Float[Tensor, "batch heads query key"]]:
    """Output (in the query's dtype) and weights.

    `allowed` None means causal attention, the queries being the last positions. Grouped key heads
    are repeated. A query without any allowed key has zero weights and a zero output. `softcap`
    bounds the scores (Gemma 2); `sinks` are each head's score of attending to nothing (GPT-OSS),
    which takes its share of the weights. float64 stays float64.
    """
    groups = query.shape[1] // key.shape[1]
    precise = torch.promote_types(query.dtype, torch.float32)
    k, v = (t.to(precise).repeat_interleave(groups, 1) for t in (key, value))
    n_queries, n_keys = query.shape[2], key.shape[2]
    if allowed is None:
        allowed = torch.ones(n_queries, n_keys, dtype=torch.bool, device=query.device).tril(
            n_keys - n_queries
        )[None, None]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = query.to(precise) @ k.mT * scale
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    scores = scores.masked_fill(~allowed, float("-inf"))
    if sinks is not None:
        nothing = sinks.to(scores)[None, :, None, None].expand(*scores.shape[:-1], 1)
        scores = torch.cat([scores, nothing], -1)
    weights = torch.softmax(scores, -1)[..., :n_keys]
    weights = weights.masked_fill(~allowed.any(-1, keepdim=True), 0)
    return (weights @ v).transpose(1, 2).to(query.dtype), weights

"""The reference implementation of attention in float32, which every fast path must equal."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def eager_attention(
    query: Float[Tensor, "batch heads query dim"],
    key: Float[Tensor, "batch kv_heads key dim"],
    value: Float[Tensor, "batch kv_heads key dim"],
    allowed: Bool[Tensor, "#batch #heads query key"] | None = None,
    scaling: float | None = None,
) -> tuple[Float[Tensor, "batch query heads dim"], Float[Tensor, "batch heads query key"]]:
    """Output (in the query's dtype) and weights.

    `allowed` None means causal attention, the queries being the last positions. Grouped key heads
    are repeated. A query without any allowed key has zero weights and a zero output.
    """
    groups = query.shape[1] // key.shape[1]
    k, v = (t.float().repeat_interleave(groups, 1) for t in (key, value))
    n_queries, n_keys = query.shape[2], key.shape[2]
    if allowed is None:
        allowed = torch.ones(n_queries, n_keys, dtype=torch.bool, device=query.device).tril(
            n_keys - n_queries
        )[None, None]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = (query.float() @ k.mT * scale).masked_fill(~allowed, float("-inf"))
    weights = torch.softmax(scores, -1).masked_fill(~allowed.any(-1, keepdim=True), 0)
    return (weights @ v).transpose(1, 2).to(query.dtype), weights

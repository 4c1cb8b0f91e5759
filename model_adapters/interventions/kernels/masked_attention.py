"""Attention under one mask: blocks where they pay, sdpa otherwise, and zeros for rows that read nothing.

Serves a whole layer, and the rows of a long prompt that fall into no group (grouped_attention.py). Knows no plan.
"""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from mapflow.model_adapters.interventions.kernels.block_sparse import block_sparse_attention, pays
from mapflow.model_adapters.interventions.kernels.edges import Edges


def masked_attention(
    module: nn.Module,
    query: Float[Tensor, "batch heads query dim"],
    key: Float[Tensor, "batch kv_heads key dim"],
    value: Float[Tensor, "batch kv_heads key dim"],
    edges: Edges,
    **options: Any,
) -> Float[Tensor, "batch query heads dim"]:
    """As sdpa under `edges.allowed`; rows without any key give zeros. A softcap is left to sdpa, which refuses it."""
    if pays(query, key) and options.get("softcap") is None:
        output = block_sparse_attention(query, key, value, edges, options.get("scaling"))
    else:
        mask = edges.bias(query.dtype) if query.is_cuda else edges.opened
        output, _ = sdpa_attention_forward(module, query, key, value, mask, **options)
    return output if edges.empty is None else output.masked_fill(edges.empty.transpose(1, 2), 0)

"""Attention under one dense mask: block-sparse where that is faster, sdpa otherwise.

Block-sparse attention is torch's FlexAttention over the blocks of 128 x 128 that hold any edge.
Under a dense mask sdpa computes every pair, also the cut ones. At a thousand keys that costs
little; at ten thousand it is most of attention.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.attention.flex_attention import flex_attention
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from mapflow.model_adapters.interventions.kernels.edges import DenseEdges

MANY_KEYS = 4096
"""Keys from which block-sparse attention is used. Milliseconds per call on one H200 with 32 heads,
sdpa with a bias against block-sparse: 0.34 and 0.50 at 2,419 positions; 1.11 and 0.92 (frames that
do not attend to each other) or 1.20 (frames that do) at 4,723; 4.3 and 1.8 or 3.4 at 9,331
(tests/benchmarks/README.md, attention kernels).
"""
ENOUGH_QUERIES = 1024
"""Below this many queries there are too few blocks to fill a GPU."""


def masked_attention(
    module: nn.Module,
    query: Float[Tensor, "batch heads query dim"],
    key: Float[Tensor, "batch kv_heads key dim"],
    value: Float[Tensor, "batch kv_heads key value_dim"],
    edges: DenseEdges,
    **options: Any,
) -> Float[Tensor, "batch query heads value_dim"]:
    """As sdpa under `edges.allowed`. Query positions without any key give zeros."""
    if block_sparse_pays(query, key):
        output = block_sparse_attention(query, key, value, edges, options.get("scaling"))
    else:
        mask = edges.bias(query.dtype) if query.is_cuda else edges.filled
        output, _ = sdpa_attention_forward(module, query, key, value, mask, **options)
    return output if edges.empty is None else output.masked_fill(edges.empty.transpose(1, 2), 0)


def block_sparse_pays(
    query: Float[Tensor, "batch heads query dim"], key: Float[Tensor, "batch kv_heads key dim"]
) -> bool:
    """Whether block-sparse attention is faster: on a GPU, without gradients, for many positions.

    Its kernels are made for half-precision formats only.
    """
    return (
        query.is_cuda
        and not torch.is_grad_enabled()
        and query.dtype in (torch.bfloat16, torch.float16)
        and query.shape[2] >= ENOUGH_QUERIES
        and key.shape[2] >= MANY_KEYS
    )


def block_sparse_attention(
    query: Float[Tensor, "batch heads query dim"],
    key: Float[Tensor, "batch kv_heads key dim"],
    value: Float[Tensor, "batch kv_heads key value_dim"],
    edges: DenseEdges,
    scaling: float | None = None,
) -> Float[Tensor, "batch query heads value_dim"]:
    """As sdpa under `edges.filled`."""
    output = _kernel()(
        query,
        key,
        value,
        block_mask=edges.blocks,
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return output.transpose(1, 2).contiguous()


@cache
def _kernel() -> Any:
    """The compiled kernel, one for all lengths."""
    return torch.compile(flex_attention, dynamic=True)

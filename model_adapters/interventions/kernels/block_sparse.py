"""Block-sparse attention on a GPU: FlexAttention over the blocks of 128 × 128 that hold an edge at all.

Under a dense mask sdpa computes every pair, those that causality or a policy rules out too; at a thousand keys that costs
little, at ten thousand it is most of attention. For what falls into no groups (grouped_attention.py): several rows in one batch,
random blocking. The crossover was measured (tests/benchmarks/README.md, attention kernels).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

from mapflow.model_adapters.interventions.kernels.edges import Edges

MANY_KEYS = 4096
"""Keys from which blocks pay. One H200, 32 heads, milliseconds a call, sdpa with a bias against blocks: at 2,419 positions 0.34
against 0.50, at 4,723 1.11 against 0.92 (frames apart) or 1.20 (frames together), at 9,331 4.3 against 1.8 or 3.4."""
ENOUGH_QUERIES = 1024
"""Queries below which its blocks of rows are too few to fill a GPU."""


def pays(
    query: Float[Tensor, "batch heads query dim"], key: Float[Tensor, "batch kv_heads key dim"]
) -> bool:
    """On a GPU, without gradients, for enough queries and keys; in the half-precision formats its kernels are made for."""
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
    value: Float[Tensor, "batch kv_heads key dim"],
    edges: Edges,
    scaling: float | None = None,
) -> Float[Tensor, "batch query heads dim"]:
    """As sdpa under `edges.opened`."""
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
    """Compiled at first use; one kernel for all lengths."""
    return torch.compile(flex_attention, dynamic=True)

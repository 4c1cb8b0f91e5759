"""Edges: the keys that each query of one layer may attend to, in the forms that kernels take.

One mask serves many layers, because windows and policies repeat. Kernels need different
forms of it, which are made once and cached on the mask. Every query position needs at least one
key. Fused kernels on a GPU add a bias in the scores' number format. Block-sparse kernels need to
know which blocks hold an edge.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask
from torch.nn.functional import pad

Mask = Bool[Tensor, "batch head query key"]

ALIGNMENT = 16
"""Fused kernels read a bias in place if its rows are a multiple of this many numbers apart; torch's
sdpa copies other biases in every call.
"""

BLOCK = 128


class Edges(ABC):
    """The allowed edges of one layer: `DenseEdges`, or `GroupedEdges` for long prompts."""

    @property
    @abstractmethod
    def allowed(self) -> Mask:
        """True where a query may attend to a key: `[batch, 1, query, key]`."""

    @abstractmethod
    def to(self, device: torch.device) -> Edges:
        """The same on the device that a layer runs on; each device's copy is made once."""

    def __and__(self, padding: Mask) -> DenseEdges:
        """Without the keys that `padding` cuts."""
        return DenseEdges(self.allowed & padding)


@runtime_checkable
class LayerMasks(Protocol):
    """The masks of all layers for one batch: what the attention function asks."""

    def mask(self, layer: int, n_queries: int, n_keys: int) -> Edges | None:
        """The edges of a 0-based layer; None where sdpa's own causal mask is right.

        The queries are the last `n_queries` of the `n_keys` positions.
        """
        ...


class DenseEdges(Edges):
    """One mask of all queries and keys: `[batch, 1, query, key]`.

    `may_be_empty` says whether any query position can be without keys; such a position attends to
    nothing and gives zeros. False spares a GPU the search.
    """

    def __init__(self, allowed: Mask, may_be_empty: bool = True) -> None:
        self._allowed, self.may_be_empty = allowed, may_be_empty
        self._copies: dict[torch.device, DenseEdges] = {}
        self._biases: dict[torch.dtype, Tensor] = {}

    @property
    def allowed(self) -> Mask:
        return self._allowed

    @cached_property
    def empty(self) -> Bool[Tensor, "batch head query 1"] | None:
        """Query positions without any key; None where there are none."""
        return ~self.allowed.any(-1, keepdim=True) if self.may_be_empty else None

    @cached_property
    def filled(self) -> Mask:
        """`allowed`, with all keys for queries that have none: a softmax needs at least one."""
        return self.allowed if self.empty is None else self.allowed | self.empty

    def bias(self, dtype: torch.dtype) -> Float[Tensor, "batch head query key"]:
        """The number to add to each score: 0 where `filled`, -inf elsewhere; rows are aligned."""
        if dtype not in self._biases:
            n_keys = self.filled.shape[-1]
            bias = torch.zeros_like(self.filled, dtype=dtype).masked_fill_(
                ~self.filled, float("-inf")
            )
            self._biases[dtype] = pad(bias, (0, -n_keys % ALIGNMENT))[..., :n_keys]
        return self._biases[dtype]

    @cached_property
    def blocks(self) -> BlockMask:
        """For FlexAttention: which blocks of 128 x 128 hold an edge, and which hold only edges.

        Counted from the mask itself. Torch's own function evaluates every pair, which takes longer
        than the attention (60 ms per mask at 9,331 positions).
        """
        filled = self.filled
        n_queries, n_keys = filled.shape[-2:]
        around = (0, -n_keys % BLOCK, 0, -n_queries % BLOCK)
        some = _blocked(pad(filled, around)).amax((-3, -1))
        every = _blocked(pad(filled, around, value=True)).amin((-3, -1))
        partial, full = (some & ~every).bool(), (some & every).bool()
        return BlockMask.from_kv_blocks(
            *_listed(partial),
            *_listed(full),
            BLOCK_SIZE=BLOCK,
            # a lambda: it is called with traced tensors, and its arguments are counted
            mask_mod=lambda row, head, query, key: filled[row, 0, query, key],
            seq_lengths=(n_queries, n_keys),
        )

    def to(self, device: torch.device) -> DenseEdges:
        if device == self.allowed.device:
            return self
        if device not in self._copies:
            self._copies[device] = DenseEdges(self.allowed.to(device), self.may_be_empty)
        return self._copies[device]


def _blocked(mask: Mask) -> UInt8[Tensor, "batch head rows _ columns _"]:
    """The blocks of a mask whose sides are whole blocks, as numbers: their extremes are fast."""
    rows, columns = mask.shape[-2] // BLOCK, mask.shape[-1] // BLOCK
    return mask.reshape(*mask.shape[:2], rows, BLOCK, columns, BLOCK).to(torch.uint8)


def _listed(
    blocks: Bool[Tensor, "batch head rows columns"],
) -> tuple[Int[Tensor, "batch head rows"], Int[Tensor, "batch head rows columns"]]:
    """For each row of blocks the number of columns that are set, and the columns, those first."""
    order = blocks.to(torch.uint8).argsort(dim=-1, descending=True, stable=True)
    return blocks.sum(-1, dtype=torch.int32), order.to(torch.int32)

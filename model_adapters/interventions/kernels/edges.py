"""Edges: which keys every query of one layer may read, and what attention kernels want to be given instead, made once.

A mask serves many layers (windows and policies repeat), while kernels have demands of their own: a row must have at
least one key, fast kernels on a GPU add a bias in the scores' own number format, and take it without a copy only if its
rows are aligned; block-sparse ones want to know which blocks are empty. So all of that hangs on the mask.
"""

from __future__ import annotations

from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask
from torch.nn.functional import pad

Mask = Bool[Tensor, "batch head query key"]

ALIGNMENT = 16
"""Numbers in a row of a bias that fused kernels read in place; others are copied by every call (torch's sdpa)."""

BLOCK = 128


class Edges:
    """`allowed` is True where a query may read a key: `[batch, 1, query, key]`.

    `may_be_empty`: can there be rows without any key? They attend to nothing and give zeros (design.md, Interventions).
    Saying no where the policy rules it out spares a GPU looking for them.
    """

    def __init__(self, allowed: Mask, may_be_empty: bool = True) -> None:
        self.allowed, self.may_be_empty = allowed, may_be_empty
        self._elsewhere: dict[torch.device, Edges] = {}
        self._biases: dict[torch.dtype, Tensor] = {}

    @cached_property
    def empty(self) -> Bool[Tensor, "batch head query 1"] | None:
        """Rows that read nothing; None where there are none."""
        return ~self.allowed.any(-1, keepdim=True) if self.may_be_empty else None

    @cached_property
    def opened(self) -> Mask:
        """`allowed`, and everything for rows that read nothing: a softmax over no key is undefined."""
        return self.allowed if self.empty is None else self.allowed | self.empty

    def bias(self, dtype: torch.dtype) -> Float[Tensor, "batch head query key"]:
        """What to add to the scores: 0 where `opened`, -inf elsewhere, in rows that begin at aligned places."""
        if dtype not in self._biases:
            n_keys = self.opened.shape[-1]
            bias = torch.zeros_like(self.opened, dtype=dtype).masked_fill_(
                ~self.opened, float("-inf")
            )
            self._biases[dtype] = pad(bias, (0, -n_keys % ALIGNMENT))[..., :n_keys]
        return self._biases[dtype]

    @cached_property
    def blocks(self) -> BlockMask:
        """For FlexAttention: which blocks of 128 × 128 hold an edge, and which hold nothing else.

        Counted from the mask itself: torch's own way evaluates a function for every pair, which takes longer than the
        attention (60 ms a mask at 9,331 positions).
        """
        opened = self.opened
        n_queries, n_keys = opened.shape[-2:]
        around = (0, -n_keys % BLOCK, 0, -n_queries % BLOCK)
        some = _blocked(pad(opened, around)).amax((-3, -1))
        every = _blocked(pad(opened, around, value=True)).amin((-3, -1))
        partial, full = (some & ~every).bool(), (some & every).bool()
        return BlockMask.from_kv_blocks(
            *_listed(partial),
            *_listed(full),
            BLOCK_SIZE=BLOCK,
            # a lambda: it is called with traced tensors, and counted by its arguments
            mask_mod=lambda row, head, query, key: opened[row, 0, query, key],
            seq_lengths=(n_queries, n_keys),
        )

    def to(self, device: torch.device) -> Edges:
        """On the device that a layer runs on, copied once for each."""
        if device == self.allowed.device:
            return self
        if device not in self._elsewhere:
            self._elsewhere[device] = Edges(self.allowed.to(device), self.may_be_empty)
        return self._elsewhere[device]

    def __and__(self, padding: Mask) -> Edges:
        """Without the keys that padding forbids."""
        return Edges(self.allowed & padding)


@runtime_checkable
class LayerMasks(Protocol):
    """Whatever can say, layer by layer, which edges a batch may use: what the attention function asks."""

    def mask(self, layer: int, n_queries: int, n_keys: int) -> Edges | None:
        """As `BatchMasks.mask`."""
        ...


def _blocked(mask: Mask) -> UInt8[Tensor, "batch head rows _ columns _"]:
    """Blocks along the last axes of a mask whose sides are whole blocks; as numbers, whose extremes are quickly found."""
    rows, columns = mask.shape[-2] // BLOCK, mask.shape[-1] // BLOCK
    return mask.reshape(*mask.shape[:2], rows, BLOCK, columns, BLOCK).to(torch.uint8)


def _listed(
    blocks: Bool[Tensor, "batch head rows columns"],
) -> tuple[Int[Tensor, "batch head rows"], Int[Tensor, "batch head rows columns"]]:
    """How many columns each row of blocks has, and which, those first."""
    order = blocks.to(torch.uint8).argsort(dim=-1, descending=True, stable=True)
    return blocks.sum(-1, dtype=torch.int32), order.to(torch.int32)

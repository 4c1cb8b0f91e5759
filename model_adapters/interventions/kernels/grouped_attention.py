"""The edges of one layer from its stretches, and attention of long prompts group by group.

At 64 frames a mask of all queries and keys has 87 million entries, and kernels that take a mask
compute every one. The causal kernel takes no mask, and a batch of frames computes only the keys
that each frame attends to (query_groups.py). `edges_of_stretches` decides which form a layer's
edges take.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from mapflow.model_adapters.interventions.kernels.dense_attention import masked_attention
from mapflow.model_adapters.interventions.kernels.edges import ALIGNMENT, DenseEdges, Edges, Mask
from mapflow.model_adapters.interventions.kernels.query_groups import (
    QueryGroup,
    Span,
    query_groups,
)

MANY_POSITIONS = 2048
"""Prompt length from which groups are used. Milliseconds per call on one H200 with 32 heads, for
frames that attend to each other, frames that do not, and frames that attend to the system text
only:

    positions   groups              sdpa with a bias   block-sparse
    1,267       0.11, 0.23, 0.12    0.13
    2,419       0.20, 0.36, 0.16    0.33
    9,331       1.36, 1.17, 0.46    4.27               3.40, 1.82, 1.35
"""

MaskOf = Callable[[Int[Tensor, " query"]], Mask]
"""Makes the mask of some query positions over all keys: `[1, 1, query, key]`."""


def edges_of_stretches(
    allowed: Bool[np.ndarray, "stretch stretch"],
    sizes: Int[np.ndarray, " stretch"],
    mask_of: MaskOf,
    device: torch.device,
    may_be_empty: bool = True,
) -> Edges:
    """The edges of one prompt's positions over themselves: groups for long prompts, else one mask.

    `allowed` holds for whole stretches, of `sizes` positions each, and is not read above its
    diagonal.
    """
    n = int(sizes.sum())
    if n >= MANY_POSITIONS:
        groups, rest = query_groups(allowed, sizes)
        if groups:
            return GroupedEdges(groups, rest, mask_of, device, may_be_empty)
    return DenseEdges(mask_of(torch.arange(n, device=device)), may_be_empty)


def segment_mask(
    allowed: Bool[Tensor, "batch target source"],
    queries: tuple[Int[Tensor, " query"], Int[Tensor, " query"]],
    keys: tuple[Int[Tensor, " key"], Int[Tensor, " key"]],
    causal: bool = True,
) -> Bool[Tensor, "batch query key"]:
    """The mask of some queries and keys, each given as (positions, segments).

    `causal` removes keys after their queries.
    """
    (query, target), (key, source) = queries, keys
    # one axis at a time: a gather of all pairs at once needs indices of eight times the mask's size
    mask = allowed.index_select(1, target).index_select(2, source)
    return mask.logical_and_(key <= query[:, None]) if causal else mask


class GroupedEdges(Edges):
    """One prompt's edges over all of its positions; masks are made on demand."""

    def __init__(
        self,
        groups: Sequence[QueryGroup],
        rest: Sequence[Span],
        mask_of: MaskOf,
        device: torch.device,
        may_be_empty: bool = True,
    ) -> None:
        self.groups, self.rest, self.device = groups, rest, device
        self.mask_of, self.may_be_empty = mask_of, may_be_empty
        self._copies: dict[torch.device, GroupedEdges] = {}
        self._biases: dict[tuple[torch.dtype, int, int], Tensor] = {}

    @property
    def allowed(self) -> Mask:
        return self._whole

    @cached_property
    def _whole(self) -> Mask:
        n = max([group.stop for group in self.groups] + [stop for _, stop in self.rest])
        return self.mask_of(torch.arange(n, device=self.device))

    @cached_property
    def rest_edges(self) -> DenseEdges:
        """The edges of the queries that are in no group."""
        queries = torch.cat([torch.arange(*span, device=self.device) for span in self.rest])
        return DenseEdges(self.mask_of(queries), self.may_be_empty)

    def to(self, device: torch.device) -> GroupedEdges:
        if device == self.device:
            return self
        if device not in self._copies:

            def mask_of(queries: Int[Tensor, " query"]) -> Mask:
                return self.mask_of(queries.to(self.device)).to(device)

            self._copies[device] = GroupedEdges(
                self.groups, self.rest, mask_of, device, self.may_be_empty
            )
        return self._copies[device]

    def shared_bias(self, group: QueryGroup, dtype: torch.dtype) -> Float[Tensor, "1 1 size key"]:
        """The bias that a group's parts share: 0 for the keys before it, causal for its own."""
        n_before = sum(stop - start for start, stop in group.before)
        key = (dtype, group.size, n_before)
        if key not in self._biases:
            width = n_before + group.size
            whole = torch.zeros(
                group.size, width + -width % ALIGNMENT, dtype=dtype, device=self.device
            )
            later = torch.ones(group.size, group.size, dtype=torch.bool, device=self.device).triu(1)
            whole[:, n_before:width].masked_fill_(later, float("-inf"))
            self._biases[key] = whole[None, None, :, :width]
        return self._biases[key]


def grouped_attention(
    module: nn.Module,
    query: Float[Tensor, "1 heads n dim"],
    key: Float[Tensor, "1 kv_heads n dim"],
    value: Float[Tensor, "1 kv_heads n value_dim"],
    edges: GroupedEdges,
    **options: Any,
) -> Float[Tensor, "1 n heads value_dim"]:
    """As sdpa under `edges.allowed`. Query positions without any key give zeros."""

    def attend(
        q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool = False
    ) -> Tensor:
        return sdpa_attention_forward(module, q, k, v, mask, **{**options, "is_causal": causal})[0]

    def of(group: QueryGroup) -> Float[Tensor, "1 query heads value_dim"]:
        queries = query[:, :, group.start : group.stop]
        own = [(group.start, group.stop)]
        if group.count > 1:
            k, v = (_keys_of_parts(part, group) for part in (key, value))
            bias = edges.shared_bias(group, query.dtype)
            found = attend(_as_batch(queries, group.count), k, v, bias)
            return found.reshape(1, -1, *found.shape[2:])
        if group.own:
            return attend(queries, _spans(key, own), _spans(value, own), None, causal=True)
        if not group.before:
            return queries.new_zeros(1, queries.shape[2], queries.shape[1], value.shape[3])
        return attend(queries, _spans(key, group.before), _spans(value, group.before), None)

    pieces = [(group.start, of(group)) for group in edges.groups]
    if edges.rest:
        queries = _spans(query, edges.rest)
        found = masked_attention(module, queries, key, value, edges.rest_edges, **options)
        parts = found.split([stop - start for start, stop in edges.rest], 1)
        pieces += [(start, part) for (start, _), part in zip(edges.rest, parts, strict=True)]
    return torch.cat([piece for _, piece in sorted(pieces, key=lambda pair: pair[0])], 1)


def _spans(
    tensor: Float[Tensor, "1 head n dim"], spans: Sequence[Span]
) -> Float[Tensor, "1 head _ dim"]:
    """The positions of `spans`: a view if there is one span."""
    parts = [tensor[:, :, start:stop] for start, stop in spans]
    return parts[0] if len(parts) == 1 else torch.cat(parts, 2)


def _as_batch(
    tensor: Float[Tensor, "1 head n dim"], count: int
) -> Float[Tensor, "count head size dim"]:
    """Consecutive parts of equal size, as a batch."""
    return tensor[0].unflatten(1, (count, -1)).transpose(0, 1)


def _keys_of_parts(
    tensor: Float[Tensor, "1 head n dim"], group: QueryGroup
) -> Float[Tensor, "count head key dim"]:
    """For each part of a group the keys (or values) before the group, then its own."""
    own = _as_batch(tensor[:, :, group.start : group.stop], group.count)
    if not group.before:
        return own
    before = _spans(tensor, group.before).expand(group.count, -1, -1, -1)
    return torch.cat([before, own], 2)

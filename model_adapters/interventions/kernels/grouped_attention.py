"""Attention of a long prompt group by group (query_groups.py): the causal kernel for causal stretches, frames that are apart as one
batch, and a mask for the few rows that are left alone.

At 64 frames a mask of all rows by all keys holds 87 million entries, of which kernels that take a mask compute every one;
the causal kernel takes none, and a batch of frames computes only what frames read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from mapflow.model_adapters.interventions.kernels.dense_attention import masked_attention
from mapflow.model_adapters.interventions.kernels.edges import ALIGNMENT, Edges, Mask
from mapflow.model_adapters.interventions.kernels.query_groups import QueryGroup

MANY_POSITIONS = 2048
"""Rows of a prompt from which groups pay. One H200, 32 heads, milliseconds a call, groups (frames together, apart, reading the
system text alone) against sdpa with a bias: at 1,267 positions 0.11, 0.23, 0.12 against 0.13, at 2,419 0.20, 0.36, 0.16
against 0.33, at 9,331 1.36, 1.17, 0.46 against 4.27 (blocks of 128: 3.40, 1.82, 1.35)."""

Span = tuple[int, int]


class GroupedEdges(Edges):
    """One prompt's edges over all of its rows, whose mask is only made where something asks for it.

    `rows(numbers)` makes it for some rows: `[1, 1, number, n]`.
    """

    def __init__(
        self,
        groups: Sequence[QueryGroup],
        left: Sequence[Span],
        rows: Callable[[Int[Tensor, " row"]], Mask],
        device: torch.device,
        may_be_empty: bool = True,
    ) -> None:
        self.groups, self.left, self.device = groups, left, device
        self._rows = rows
        self.may_be_empty = may_be_empty
        self._elsewhere: dict[torch.device, Edges] = {}
        self._biases: dict[Any, Tensor] = {}

    @cached_property
    def allowed(self) -> Mask:  # pyright: ignore[reportIncompatibleVariableOverride]
        n = max([group.stop for group in self.groups] + [stop for _, stop in self.left])
        return self._rows(torch.arange(n, device=self.device))

    @cached_property
    def rest(self) -> Edges:
        """Of the rows that are in no group."""
        numbers = torch.cat([torch.arange(*span, device=self.device) for span in self.left])
        return Edges(self._rows(numbers), self.may_be_empty)

    def to(self, device: torch.device) -> Edges:
        if device == self.device:
            return self
        if device not in self._elsewhere:

            def rows(numbers: Int[Tensor, " row"]) -> Mask:
                return self._rows(numbers.to(self.device)).to(device)

            self._elsewhere[device] = GroupedEdges(
                self.groups, self.left, rows, device, self.may_be_empty
            )
        return self._elsewhere[device]

    def shared_bias(self, group: QueryGroup, dtype: torch.dtype) -> Float[Tensor, "1 1 size key"]:
        """What each of a group's stretches adds to its scores: nothing for the keys before it, causal for its own."""
        n_before = sum(stop - start for start, stop in group.before)
        key = (dtype, group.size, n_before)
        if key not in self._biases:
            width = n_before + group.size
            whole = torch.zeros(
                group.size, width + -width % ALIGNMENT, dtype=dtype, device=self.device
            )
            own = torch.ones(group.size, group.size, dtype=torch.bool, device=self.device).triu(1)
            whole[:, n_before:width].masked_fill_(own, float("-inf"))
            self._biases[key] = whole[None, None, :, :width]
        return self._biases[key]


def grouped_attention(
    module: nn.Module,
    query: Float[Tensor, "1 heads n dim"],
    key: Float[Tensor, "1 kv_heads n dim"],
    value: Float[Tensor, "1 kv_heads n dim"],
    edges: GroupedEdges,
    **options: Any,
) -> Float[Tensor, "1 n heads dim"]:
    """As sdpa under `edges.allowed`; rows without any key give zeros."""

    def attend(
        q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool = False
    ) -> Tensor:
        return sdpa_attention_forward(module, q, k, v, mask, **{**options, "is_causal": causal})[0]

    def of(group: QueryGroup) -> Float[Tensor, "1 row heads dim"]:
        rows = query[:, :, group.start : group.stop]
        own = [(group.start, group.stop)]
        if group.count > 1:
            k, v = (_each(part, group) for part in (key, value))
            found = attend(
                _stretched(rows, group.count), k, v, edges.shared_bias(group, query.dtype)
            )
            return found.reshape(1, -1, *found.shape[2:])
        if group.own:
            return attend(rows, _columns(key, own), _columns(value, own), None, causal=True)
        if not group.before:
            return torch.zeros_like(rows.transpose(1, 2))
        return attend(rows, _columns(key, group.before), _columns(value, group.before), None)

    pieces = [(group.start, of(group)) for group in edges.groups]
    if edges.left:
        found = masked_attention(
            module, _columns(query, edges.left), key, value, edges.rest, **options
        )
        parts = found.split([stop - start for start, stop in edges.left], 1)
        pieces += [(start, part) for (start, _), part in zip(edges.left, parts, strict=True)]
    return torch.cat([piece for _, piece in sorted(pieces, key=lambda pair: pair[0])], 1)


def _columns(
    tensor: Float[Tensor, "1 head n dim"], spans: Sequence[Span]
) -> Float[Tensor, "1 head _ dim"]:
    """Those positions: a view where there is one span."""
    parts = [tensor[:, :, start:stop] for start, stop in spans]
    return parts[0] if len(parts) == 1 else torch.cat(parts, 2)


def _stretched(
    rows: Float[Tensor, "1 head row dim"], count: int
) -> Float[Tensor, "count head size dim"]:
    """Stretches one after the other, as a batch."""
    return rows[0].unflatten(1, (count, -1)).transpose(0, 1)


def _each(
    tensor: Float[Tensor, "1 head n dim"], group: QueryGroup
) -> Float[Tensor, "count head key dim"]:
    """For each stretch the keys (or values) before all of them, then its own."""
    own = _stretched(tensor[:, :, group.start : group.stop], group.count)
    if not group.before:
        return own
    before = _columns(tensor, group.before).expand(group.count, -1, -1, -1)
    return torch.cat([before, own], 2)

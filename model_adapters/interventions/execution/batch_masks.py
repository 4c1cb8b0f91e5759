"""BatchMasks: the masks of one padded batch, layer by layer, as the attention function asks for them.

A batch holds prompts of different layouts under different interventions, padded on either side. Rows and keys beyond
the prompts behave as follows (design.md, Interventions): a generated row reads prompt keys as the last prompt row
does, generated keys are free, and padding is left to the model's own padding mask.

Segment cuts stay small until a layer asks: `reads` is gathered into a token mask on the device, once for every
distinct layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mapflow.model_adapters.interventions.kernels.edges import Edges, Mask
from mapflow.model_adapters.interventions.kernels.grouped_attention import (
    MANY_POSITIONS,
    GroupedEdges,
)
from mapflow.model_adapters.interventions.kernels.query_groups import query_groups
from mapflow.model_adapters.interventions.language.intervention import Compiled

Reads = Bool[Tensor, "batch layer target source"]
Blocked = Callable[[int], "Bool[Tensor, 'batch query key'] | None"]


class BatchMasks:
    """Masks for a batch of prompts of padded length `n`.

    `reads` are segment permissions with one extra segment at the end that stands for padding and generated keys and
    is free; `segment_of` gives each padded position its segment there; `last_row` is each prompt's last position.
    """

    def __init__(
        self,
        reads: Bool[Tensor, "batch layer target source"],
        segment_of: Int[Tensor, "batch n"],
        last_row: Int[Tensor, " batch"],
        blocked: Blocked | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.blocked = blocked
        self._same_as = _first_equal_layer(reads)
        self._full = reads.flatten(2).all(-1).all(0).tolist()
        self._may_be_empty = _may_be_empty(reads, segment_of)
        self._masks: dict[tuple[int, int, int], Edges] = {}
        self._on_host = reads, segment_of
        self.reads = reads.to(device, non_blocking=True)
        self.segment_of = segment_of.to(device, non_blocking=True)
        self.last_row = last_row.to(device, non_blocking=True)
        self.last_segment = self.segment_of.gather(1, self.last_row[:, None])

    @classmethod
    def of(
        cls,
        compiled: Sequence[Compiled],
        starts: Sequence[int] | None = None,
        length: int | None = None,
        device: torch.device | str = "cpu",
    ) -> BatchMasks:
        """For prompts that begin at padded positions `starts` (None: 0, padding on the right) of a batch of `length`."""
        starts = starts or [0] * len(compiled)
        length = length or max(
            start + len(item.layout) for start, item in zip(starts, compiled, strict=True)
        )
        n_segments = max(item.allowed.shape[-1] for item in compiled)
        reads = torch.ones(
            len(compiled), compiled[0].n_layers, n_segments + 1, n_segments + 1, dtype=torch.bool
        )
        segment_of = torch.full((len(compiled), length), n_segments)
        for row, (start, item) in enumerate(zip(starts, compiled, strict=True)):
            own = item.allowed.shape[-1]
            reads[row, :, :own, :own] = torch.from_numpy(item.allowed)
            segment_of[row, start : start + len(item.layout)] = torch.from_numpy(
                item.layout.segment_of
            )
        ends = torch.tensor(
            [start + len(item.layout) - 1 for start, item in zip(starts, compiled, strict=True)]
        )

        def blocked(layer: int) -> Bool[Tensor, "batch query key"] | None:
            edges = [item.blocked(layer, device) for item in compiled]
            if all(edge is None for edge in edges):
                return None
            out = torch.zeros(len(compiled), length, length, dtype=torch.bool, device=device)
            for row, (start, edge) in enumerate(zip(starts, edges, strict=True)):
                if edge is not None:
                    stop = start + edge.shape[0]
                    out[row, start:stop, start:stop] = edge
            return out

        random = any(item.random is not None for item in compiled)
        return cls(reads, segment_of, ends, blocked if random else None, device)

    def mask(self, layer: int, n_queries: int, n_keys: int) -> Edges | None:
        """Where attention is allowed: `[batch, 1, n_queries, n_keys]`, causal; None where nothing is cut and sdpa's own
        causal mask (right for a whole prefill and for a single row only) will do.

        The queries are the last `n_queries` of `n_keys` positions: all rows in a prefill, a suffix of them when a run
        resumes, one row in cached decoding.
        """
        if self._full[layer] and self.blocked is None and n_queries in (1, n_keys):
            return None
        key = (self._same_as[layer] if self.blocked is None else layer, n_queries, n_keys)
        if key not in self._masks:
            kept = (
                {} if self.blocked else {k: m for k, m in self._masks.items() if k[1:] == key[1:]}
            )
            self._masks = {**kept, key: self._build(layer, n_queries, n_keys)}
        return self._masks[key]

    def _build(self, layer: int, n_queries: int, n_keys: int) -> Edges:
        length, device = self.segment_of.shape[1], self.segment_of.device
        whole_prompt = n_queries == n_keys == length and len(self.segment_of) == 1
        if whole_prompt and n_keys >= MANY_POSITIONS and self.blocked is None:
            runs, sizes = torch.unique_consecutive(self._on_host[1][0], return_counts=True)
            seen = self._on_host[0][0, layer][runs][:, runs]
            groups, left = query_groups(seen.numpy(), sizes.numpy())
            if groups:
                empty = self._may_be_empty[layer]
                return GroupedEdges(
                    groups, left, lambda rows: self._allowed(layer, rows, n_keys), device, empty
                )
        query = torch.arange(n_keys - n_queries, n_keys, device=device)
        return Edges(
            self._allowed(layer, query, n_keys),
            self._may_be_empty[layer] or self.blocked is not None,
        )

    def _allowed(self, layer: int, query: Int[Tensor, " query"], n_keys: int) -> Mask:
        """The mask of some rows."""
        length, device = self.segment_of.shape[1], self.segment_of.device
        position = torch.arange(n_keys, device=device)
        free = self.reads.shape[-1] - 1
        beyond = self.last_segment.expand(-1, max(0, n_keys - length))
        target = torch.cat([self.segment_of, beyond], 1)[:, query]
        source = torch.cat([self.segment_of, torch.full_like(beyond, free)], 1)[:, :n_keys]
        allowed = torch.stack(  # by segments first: a gather of every pair at once takes indices eight times the mask
            [
                reads[layer][row].index_select(1, column)
                for reads, row, column in zip(self.reads, target, source, strict=True)
            ]
        )
        allowed &= position <= query[:, None]
        blocked = self.blocked(layer) if self.blocked else None
        if blocked is not None:
            row = torch.where(query < length, query, self.last_row[:, None])
            seen = blocked[torch.arange(len(row), device=device)[:, None], row][
                :, :, : min(length, n_keys)
            ]
            allowed[:, :, : seen.shape[2]] &= ~seen
        return allowed[:, None]


def _first_equal_layer(reads: Reads) -> list[int]:
    """For each layer the first one with the same permissions, so that their masks are built once."""
    seen: dict[bytes, int] = {}
    return [
        seen.setdefault(reads[:, layer].numpy().tobytes(), layer) for layer in range(reads.shape[1])
    ]


def _may_be_empty(reads: Reads, segment_of: Int[Tensor, "batch n"]) -> list[bool]:
    """For each layer whether segments leave some row no key. A segment that reads one which begins no later than it does,
    itself for instance, has that one's first key in every row."""
    n = segment_of.shape[1]
    first = torch.full((reads.shape[0], reads.shape[-1]), n)
    first.scatter_reduce_(1, segment_of, torch.arange(n).expand_as(segment_of), "amin")
    begun = first[:, None, :] <= first[:, :, None]
    without = ~(reads & begun[:, None]).any(-1) & (first < n)[:, None]
    return without.any(-1).any(0).tolist()

"""The masks of one padded batch of prompts, made when the attention function asks for them.

A batch holds prompts of different layouts under different interventions, padded on either side.
Positions beyond the prompts behave as follows: a generated position attends to the prompt as the
last prompt position does, and to generated keys freely; padding is left to the model's own padding
mask.

Cuts between segments stay small until a layer asks. Then they become a mask on the device, once
for all layers with the same cuts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mapflow.model_adapters.interventions.kernels.edges import DenseEdges, Edges, Mask
from mapflow.model_adapters.interventions.kernels.grouped_attention import (
    edges_of_stretches,
    segment_mask,
)
from mapflow.model_adapters.interventions.language.intervention import Compiled
from mapflow.model_adapters.interventions.language.segment_masks import stretches, without_keys

Blocked = Callable[[int], "Bool[Tensor, 'batch query key'] | None"]
"""The single edges that random blocking cuts in a layer; None where it cuts none."""


class BatchMasks:
    """Masks for a batch of prompts of padded length `n`.

    `allowed` has one more segment than the prompts: padding and generated keys, whose edges are all
    allowed. `segment_of` gives the segment of each padded position; `last` is each prompt's last
    position. `causal[layer]` is False where the model's own mask, which the layer's edges are
    joined with, lets queries attend to later keys; None means that no layer has such a mask.
    """

    def __init__(
        self,
        allowed: Bool[Tensor, "batch layer target source"],
        segment_of: Int[Tensor, "batch n"],
        last: Int[Tensor, " batch"],
        blocked: Blocked | None = None,
        device: torch.device | str = "cpu",
        causal: Sequence[bool] | None = None,
    ) -> None:
        self.blocked = blocked
        self.causal = [True] * allowed.shape[1] if causal is None else list(causal)
        self._same_as = _first_equal_layers(allowed, self.causal)
        self._full = allowed.flatten(2).all(-1).all(0).tolist()
        prompts = [
            _over_stretches(*prompt)
            for prompt in zip(allowed.numpy(), segment_of.numpy(), strict=True)
        ]
        self._may_be_empty = np.any(
            [without_keys(own).any(-1) for own, _ in prompts], axis=0
        ).tolist()
        self._stretches = prompts[0] if len(prompts) == 1 and all(self.causal) else None
        self._masks: dict[tuple[int, int, int], Edges] = {}
        self.allowed = allowed.to(device, non_blocking=True)
        self.segment_of = segment_of.to(device, non_blocking=True)
        self.last = last.to(device, non_blocking=True)
        # with its index: "cuda" alone equals no tensor's device
        self.device = self.segment_of.device
        self._last_segment = self.segment_of.gather(1, self.last[:, None])

    @classmethod
    def of(
        cls,
        compiled: Sequence[Compiled],
        starts: Sequence[int] | None = None,
        length: int | None = None,
        device: torch.device | str = "cpu",
    ) -> BatchMasks:
        """For prompts that begin at positions `starts` of a batch padded to `length`.

        `starts` None means 0: padding is on the right.
        """
        starts = starts or [0] * len(compiled)
        stops = [start + len(item.layout) for start, item in zip(starts, compiled, strict=True)]
        length = length or max(stops)
        n_segments = max(item.allowed.shape[-1] for item in compiled)
        shape = (len(compiled), compiled[0].n_layers, n_segments + 1, n_segments + 1)
        allowed = np.ones(shape, dtype=bool)
        segment_of = np.full((len(compiled), length), n_segments)
        for row, (start, stop, item) in enumerate(zip(starts, stops, compiled, strict=True)):
            own = item.allowed.shape[-1]
            allowed[row, :, :own, :own] = item.allowed
            segment_of[row, start:stop] = item.layout.segment_of

        def blocked(layer: int) -> Bool[Tensor, "batch query key"] | None:
            edges = [item.blocked(layer, device) for item in compiled]
            if all(edge is None for edge in edges):
                return None
            out = torch.zeros(len(compiled), length, length, dtype=torch.bool, device=device)
            for row, (start, stop, edge) in enumerate(zip(starts, stops, edges, strict=True)):
                if edge is not None:
                    out[row, start:stop, start:stop] = edge
            return out

        random = any(item.random is not None for item in compiled)
        return cls(
            torch.from_numpy(allowed),
            torch.from_numpy(segment_of),
            torch.tensor(stops) - 1,
            blocked if random else None,
            device,
            [
                all(item.own is None or item.own.is_causal(layer) for item in compiled)
                for layer in range(compiled[0].n_layers)
            ],
        )

    def mask(self, layer: int, n_queries: int, n_keys: int) -> Edges | None:
        """The edges of a 0-based layer: `[batch, 1, n_queries, n_keys]`.

        None where nothing is cut and sdpa's own causal mask is right: for a whole prefill, or for
        one position. The queries are the last `n_queries` of `n_keys` positions: all in a prefill,
        a suffix when a generation resumes, one in cached decoding.
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

    def dense(self, layer: int, n_queries: int, n_keys: int) -> DenseEdges:
        """As `mask`, but always one explicit mask, also where nothing is cut."""
        queries = torch.arange(n_keys - n_queries, n_keys, device=self.device)
        may_be_empty = (
            self._may_be_empty[layer] or self.blocked is not None or not self.causal[layer]
        )
        return DenseEdges(self._mask_of(layer, queries, n_keys), may_be_empty)

    def _build(self, layer: int, n_queries: int, n_keys: int) -> Edges:
        whole_prompt = n_queries == n_keys == self.segment_of.shape[1]
        if self._stretches is None or not whole_prompt or self.blocked is not None:
            return self.dense(layer, n_queries, n_keys)
        allowed, sizes = self._stretches
        return edges_of_stretches(
            allowed[layer],
            sizes,
            lambda queries: self._mask_of(layer, queries, n_keys),
            self.device,
            self._may_be_empty[layer],
        )

    def _mask_of(self, layer: int, query: Int[Tensor, " query"], n_keys: int) -> Mask:
        """The mask of some query positions over the first `n_keys` positions."""
        length = self.segment_of.shape[1]
        position = torch.arange(n_keys, device=self.device)
        free = self.allowed.shape[-1] - 1
        generated = self._last_segment.expand(-1, max(0, n_keys - length))
        targets = torch.cat([self.segment_of, generated], 1)[:, query]
        sources = torch.cat([self.segment_of, torch.full_like(generated, free)], 1)[:, :n_keys]
        mask = torch.cat(
            [
                segment_mask(
                    allowed[None, layer], (query, target), (position, source), self.causal[layer]
                )
                for allowed, target, source in zip(self.allowed, targets, sources, strict=True)
            ]
        )
        blocked = self.blocked(layer) if self.blocked else None
        if blocked is not None:
            prompt = torch.arange(len(mask), device=self.device)[:, None]
            like = torch.where(query < length, query, self.last[:, None])
            cut = blocked[prompt, like][:, :, : min(length, n_keys)]
            mask[:, :, : cut.shape[2]] &= ~cut
        return mask[:, None]


def _first_equal_layers(
    allowed: Bool[Tensor, "batch layer target source"], causal: Sequence[bool]
) -> list[int]:
    """For each layer the first one with the same cuts, so that their mask is made once."""
    first: dict[tuple[bytes, bool], int] = {}
    return [
        first.setdefault((allowed[:, layer].numpy().tobytes(), causal[layer]), layer)
        for layer in range(allowed.shape[1])
    ]


def _over_stretches(
    allowed: Bool[np.ndarray, "layer target source"], segment_of: Int[np.ndarray, " n"]
) -> tuple[Bool[np.ndarray, "layer stretch stretch"], Int[np.ndarray, " stretch"]]:
    """One prompt's cuts between stretches, and the stretches' sizes."""
    segment, sizes = stretches(segment_of)
    return allowed[:, segment][:, :, segment], sizes

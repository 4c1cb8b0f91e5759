"""The attention edges of some branches in one layer: computed positions over all used keys.

Branches lie end to end. Queries come branch by branch. Keys come in the order in which the
executor joins them: first the trunk's kept ones, which all branches share, then each branch's own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mapflow.model_adapters.interventions.execution.layer_arguments import StretchIndex
from mapflow.model_adapters.interventions.execution.schedule import Job
from mapflow.model_adapters.interventions.kernels.edges import DenseEdges, Edges, Mask
from mapflow.model_adapters.interventions.kernels.grouped_attention import (
    edges_of_stretches,
    segment_mask,
)
from mapflow.model_adapters.interventions.language.intervention import Compiled
from mapflow.model_adapters.interventions.language.segment_masks import without_keys

CACHED = 8
"""Masks cached for later layers. One branch alone has two, in its window and after it, and few jobs
alternate.
"""

Allowed = Bool[np.ndarray, "branch target source"]


class BranchMasks:
    """The masks of one pass; a mask that several layers share is made once."""

    def __init__(self, index: StretchIndex, compiled: Sequence[Compiled]) -> None:
        self.index, self.compiled = index, compiled
        self._made: OrderedDict[Hashable, Edges | None] = OrderedDict()

    def of(self, job: Job, members: slice, layer: int) -> Edges | None:
        """The edges of some of a job's branches in a 0-based layer.

        None where sdpa's own masks are right: causal attention of positions over themselves, or one
        position that attends to all keys.
        """
        allowed = job.allowed[members]
        variants = [self.compiled[variant] for variant in job.variants[members]]
        if any(one.budget is not None for one in variants):
            return self._dense(job, allowed, variants, layer)
        key = (allowed.tobytes(), job.computed.tobytes(), job.kept.tobytes(), job.own.tobytes())
        if key not in self._made:
            self._made[key] = self._build(job, allowed, layer)
            if len(self._made) > CACHED:
                self._made.popitem(last=False)
        self._made.move_to_end(key)
        return self._made[key]

    def _build(self, job: Job, allowed: Allowed, layer: int) -> Edges | None:
        if self._needs_no_mask(job, allowed):
            return None
        if len(allowed) > 1 or job.kept.any() or job.in_two_steps:
            return self._dense(job, allowed, [], layer)
        # one branch brings all of the keys that it uses: its positions may fall into groups
        positions, stretch = self.index.positions(job.own)
        on_device = torch.from_numpy(allowed).to(positions.device, non_blocking=True)

        def mask_of(queries: Int[Tensor, " query"]) -> Mask:
            some = positions[queries], stretch[queries]
            return segment_mask(on_device, some, (positions, stretch))[None]

        return edges_of_stretches(
            allowed[0][job.own][:, job.own],
            self.index.sizes[job.own],
            mask_of,
            positions.device,
            _may_be_empty(job, allowed),
        )

    def _dense(
        self, job: Job, allowed: Allowed, random: Sequence[Compiled], layer: int
    ) -> DenseEdges:
        """One mask of all computed positions, without the random edges that `random` cuts."""
        queries = self.index.positions(job.computed)
        device = queries[0].device
        on_device = torch.from_numpy(allowed).to(device, non_blocking=True)
        parts = []
        for some in (job.kept, job.own):
            keys = self.index.positions(some)
            mask = segment_mask(on_device, queries, keys)
            for branch, one in enumerate(random):
                blocked = one.blocked(layer, device)
                if blocked is not None:
                    mask[branch] &= ~blocked[queries[0][:, None], keys[0]]
            parts.append(mask)
        kept, own = parts
        if len(own) > 1:
            same_branch = torch.eye(len(own), dtype=torch.bool, device=device)[:, None, :, None]
            own = own[:, :, None] & same_branch
        mask = own.flatten(2).flatten(0, 1)
        if job.kept.any():
            mask = torch.cat([kept.flatten(0, 1), mask], 1)
        return DenseEdges(mask[None, None], bool(random) or _may_be_empty(job, allowed))

    def _needs_no_mask(self, job: Job, allowed: Allowed) -> bool:
        if len(allowed) > 1:
            return False
        used = allowed[:, job.computed][:, :, job.kept | job.own]
        if self.index.count(job.computed) == 1 and used.all():
            return True
        if job.kept.any() or job.in_two_steps:
            return False
        return bool((used == np.tri(len(job.own), dtype=bool)[job.computed][:, job.own]).all())


def _may_be_empty(job: Job, allowed: Allowed) -> bool:
    return bool(without_keys(allowed & (job.kept | job.own))[:, job.computed].any())

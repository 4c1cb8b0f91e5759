"""The attention edges of some branches in one layer: a job's computed rows over the keys it brings and those it keeps.

Branches lie end to end: queries branch by branch; keys in the order in which the executor joins them, the trunk's kept
ones first, which all branches share, then each branch's own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mapflow.model_adapters.interventions.execution.row_index import RowIndex
from mapflow.model_adapters.interventions.execution.schedule import Job
from mapflow.model_adapters.interventions.kernels.edges import Edges, Mask
from mapflow.model_adapters.interventions.kernels.grouped_attention import (
    MANY_POSITIONS,
    GroupedEdges,
)
from mapflow.model_adapters.interventions.kernels.query_groups import query_groups
from mapflow.model_adapters.interventions.language.intervention import Compiled

REMEMBERED = 8
"""Masks kept for later layers: one branch alone has two, in its window and after it, and few jobs take turns."""


class BranchMasks:
    """For one pass: a mask that comes again is not made again."""

    def __init__(self, index: RowIndex, compiled: Sequence[Compiled]) -> None:
        self.index, self.compiled = index, compiled
        self._made: OrderedDict[Hashable, Edges | None] = OrderedDict()

    def of(self, job: Job, members: slice, layer: int) -> Edges | None:
        """Kept keys, and own keys of the same branch, as far as a branch's query may read them in 0-based `layer`.

        None where sdpa's own masks are right: plain causal attention of rows over themselves, or one row that reads all.
        """
        reads = job.reads[members]
        variants = [self.compiled[variant] for variant in job.variants[members]]
        if any(one.budget is not None for one in variants):
            return self._build(job, reads, dict(enumerate(variants)), layer)
        key = (reads.tobytes(), job.computed.tobytes(), job.kept.tobytes(), job.own.tobytes())
        if key not in self._made:
            self._made[key] = (
                None if self._plain(job, reads) else self._of_segments(job, reads, layer)
            )
            if len(self._made) > REMEMBERED:
                self._made.popitem(last=False)
        self._made.move_to_end(key)
        return self._made[key]

    def _of_segments(
        self, job: Job, reads: Bool[np.ndarray, "branch target source"], layer: int
    ) -> Edges:
        """Groups where one branch brings all keys that it reads, and there are many."""
        sizes = self.index.sizes[job.own]
        if len(reads) > 1 or job.kept.any() or job.in_two_steps or sizes.sum() < MANY_POSITIONS:
            return self._build(job, reads, {}, layer)
        groups, left = query_groups(reads[0][job.own][:, job.own], sizes)
        if not groups:
            return self._build(job, reads, {}, layer)
        query, query_run = self.index.positions_and_runs(job.own)
        permitted = torch.from_numpy(reads[0]).to(query.device, non_blocking=True)[:, query_run]

        def rows(numbers: Int[Tensor, " row"]) -> Mask:
            return (permitted[query_run[numbers]] & (query <= query[numbers, None]))[None, None]

        return GroupedEdges(groups, left, rows, query.device, _may_be_empty(job, reads))

    def _build(
        self,
        job: Job,
        reads: Bool[np.ndarray, "branch target source"],
        scattered: dict[int, Compiled],
        layer: int,
    ) -> Edges:
        index = self.index
        query, query_run = index.positions_and_runs(job.computed)
        permitted = torch.from_numpy(reads).to(query.device, non_blocking=True)[:, query_run]
        parts = []
        for keys in (job.kept, job.own):
            key, key_run = index.positions_and_runs(keys)
            allowed = permitted[:, :, key_run] & (key <= query[:, None])
            for row, one in scattered.items():
                blocked = one.blocked(layer, query.device)
                if blocked is not None:
                    allowed[row] &= ~blocked[query[:, None], key]
            parts.append(allowed)
        kept, own = parts
        if len(own) > 1:
            own_branch = torch.eye(len(own), dtype=torch.bool, device=own.device)[:, None, :, None]
            own = own[:, :, None] & own_branch
        allowed = own.flatten(2).flatten(0, 1)
        if job.kept.any():
            allowed = torch.cat([kept.flatten(0, 1), allowed], 1)
        return Edges(allowed[None, None], bool(scattered) or _may_be_empty(job, reads))

    def _plain(self, job: Job, reads: Bool[np.ndarray, "branch target source"]) -> bool:
        if len(reads) > 1:
            return False
        seen = reads[:, job.computed][:, :, job.kept | job.own]
        if self.index.count(job.computed) == 1 and seen.all():
            return True
        if job.kept.any() or job.in_two_steps:
            return False
        return bool((seen == np.tri(len(job.own), dtype=bool)[job.computed][:, job.own]).all())


def _may_be_empty(job: Job, reads: Bool[np.ndarray, "branch target source"]) -> bool:
    """A run has a key in each of its rows if it reads itself, or any run before it, which then is there as a whole."""
    causal = np.tri(reads.shape[-1], dtype=bool)
    seen = (reads & causal)[:, job.computed][:, :, job.kept | job.own]
    return not seen.any(-1).all()

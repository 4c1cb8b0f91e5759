"""The attention mask of some branches in one layer: a job's computed rows over the keys it brings and those it keeps.

Branches lie end to end: queries branch by branch; keys in the order in which the executor joins them, the trunk's kept
ones first, which all branches share, then each branch's own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from mapflow.model_adapters.interventions.intervention import Compiled
from mapflow.model_adapters.interventions.row_index import RowIndex
from mapflow.model_adapters.interventions.schedule import Job


def mask_of(
    job: Job, members: slice, index: RowIndex, compiled: Sequence[Compiled], layer: int
) -> Bool[Tensor, "1 1 query key"] | None:
    """True where a branch's query may read a key, in 0-based `layer`: kept keys, and own keys of the same branch.

    None where sdpa's own masks are right: plain causal attention of rows over themselves, or one row that reads all.
    """
    reads = job.reads[members]
    scattered = {
        row: compiled[variant]
        for row, variant in enumerate(job.variants[members])
        if compiled[variant].budget is not None
    }
    if not scattered and _plain(job, reads, index):
        return None
    query, query_run = index.positions_and_runs(job.computed)
    permitted = torch.from_numpy(reads).to(query.device)[:, query_run]
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
    own_branch = torch.eye(len(own), dtype=torch.bool, device=own.device)[:, None, :, None]
    return torch.cat([kept.flatten(0, 1), (own[:, :, None] & own_branch).flatten(2).flatten(0, 1)], 1)[
        None, None
    ]


def _plain(job: Job, reads: Bool[np.ndarray, "branch target source"], index: RowIndex) -> bool:
    if len(reads) > 1:
        return False
    seen = reads[:, job.computed][:, :, job.kept | job.own]
    if index.count(job.computed) == 1 and seen.all():
        return True
    if job.kept.any() or job.in_two_steps:
        return False
    return bool((seen == np.tri(len(job.own), dtype=bool)[job.computed][:, job.own]).all())

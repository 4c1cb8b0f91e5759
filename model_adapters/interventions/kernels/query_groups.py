"""Row groups: how the rows of a long prompt fall into stretches whose attention needs no mask of all rows by all keys.

Cuts are made between segments, so rows of one segment read alike: some earlier segments as a whole, and their own
causally or not at all. Consecutive segments that read each other besides are one plainly causal stretch, and frames that
read the same segments before them, but not each other, are one batch. Knows runs (contiguous stretches of a segment),
no tensors of a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Int

FEW_QUERIES = 64
"""Rows below which a group is not worth a kernel of its own: text, mostly, whose rows go together under one mask."""

MOST_GROUPS = 8
"""Calls for groups in one layer. Where text stands between frames that read it, every frame is a group, and sixty small calls
take the host longer than one call for all of them takes the GPU."""

LEAST_SHARE = 0.5
"""Of all rows that groups must take. Where most are left (frames of unequal sizes), one call for everything is faster: one H200,
9,331 positions, 98 % left: 2.2 ms a layer against 1.8 by blocks."""


@dataclass(frozen=True)
class QueryGroup:
    """`count` stretches of `size` rows each, one after the other from row `start`. Each reads the keys of all of `before`,
    (first, behind the last) each, and itself, causally, if `own`."""

    start: int
    size: int
    own: bool
    before: tuple[tuple[int, int], ...]
    count: int = 1

    @property
    def stop(self) -> int:
        return self.start + self.count * self.size

    @property
    def alone(self) -> bool:
        """Can one call without any mask, or a small one that its stretches share, compute it?"""
        return self.count > 1 or not self.own or not self.before


def query_groups(
    seen: Bool[np.ndarray, "run run"], sizes: Int[np.ndarray, " run"]
) -> tuple[list[QueryGroup], list[tuple[int, int]]]:
    """Groups worth a call of their own, the largest `MOST_GROUPS`, and the rows that are left, as (first, behind the last)
    stretches; in order, and each row in one of them. No groups where they would not take `LEAST_SHARE` of the rows.

    `seen[i, j]`: run i's queries may read run j's keys; above the diagonal it means nothing.
    """
    groups: list[QueryGroup] = []
    for stretch in _stretches(seen, sizes):
        last = groups[-1] if groups else None
        if (
            last is not None
            and replace(last, start=stretch.start, count=1) == stretch
            and stretch.own
        ):
            groups[-1] = replace(last, count=last.count + 1)
        else:
            groups.append(stretch)
    worth = [group for group in groups if group.alone and group.stop - group.start >= FEW_QUERIES]
    largest = sorted(worth, key=lambda group: group.start - group.stop)[:MOST_GROUPS]
    chosen = sorted(largest, key=lambda group: group.start)
    n = int(sizes.sum())
    if sum(group.stop - group.start for group in chosen) < LEAST_SHARE * n:
        return [], [(0, n)]
    left: list[tuple[int, int]] = []
    row = 0
    for start, stop in [*((group.start, group.stop) for group in chosen), (n, n)]:
        if row < start:
            left.append((row, start))
        row = stop
    return chosen, left


def _stretches(
    seen: Bool[np.ndarray, "run run"], sizes: Int[np.ndarray, " run"]
) -> list[QueryGroup]:
    """Runs, joined with those after them as long as all of them together read like one."""
    begins = np.concatenate([[0], np.cumsum(sizes)]).tolist()
    found, run = [], 0
    while run < len(sizes):
        own, expected = bool(seen[run, run]), seen[run, :run]
        behind = run + 1
        while behind < len(sizes):
            inside = np.full(behind - run, own)
            wanted = np.concatenate([expected, inside, [own]])
            if (seen[behind, : behind + 1] != wanted).any():
                break
            behind += 1
        before = _joined([(begins[j], begins[j + 1]) for j in expected.nonzero()[0]])
        found.append(QueryGroup(begins[run], begins[behind] - begins[run], own, before))
        run = behind
    return found


def _joined(spans: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Spans that touch, as one."""
    out: list[tuple[int, int]] = []
    for first, behind in spans:
        if out and out[-1][1] == first:
            out[-1] = (out[-1][0], behind)
        else:
            out.append((first, behind))
    return tuple(out)

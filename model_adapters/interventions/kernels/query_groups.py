"""Query groups: how positions of a long prompt group so that their attention needs no dense mask.

Cuts are made between segments, so all positions of a stretch (consecutive positions of one
segment) attend alike: to some earlier stretches as a whole, and to their own causally or not at
all. Consecutive stretches that attend to each other are one causal group. Frames that attend to
the same stretches before them, but not to each other, are one batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Int

FEW_QUERIES = 64
"""Minimum number of positions for a kernel call of their own. Shorter groups, mostly text, share
one call under a mask.
"""

MOST_GROUPS = 8
"""Maximum number of groups in one layer. Where text that attends to the video stands between
frames, every frame is a group, and sixty small calls take the host longer than one call takes the
GPU.
"""

LEAST_SHARE = 0.5
"""Minimum share of the positions that groups must cover. Otherwise one call for all is faster: at
9,331 positions, 98 % of them outside groups (frames of unequal sizes), 2.2 ms per layer against
1.8 ms with block-sparse attention (one H200).
"""

Span = tuple[int, int]
"""Positions as a half-open range [start, stop)."""


@dataclass(frozen=True)
class QueryGroup:
    """`count` parts of `size` positions each, consecutive from position `start`.

    Each part attends to all keys of the spans `before`, and causally to its own keys if `own`.
    """

    start: int
    size: int
    own: bool
    before: tuple[Span, ...]
    count: int = 1

    @property
    def stop(self) -> int:
        return self.start + self.count * self.size

    @property
    def needs_no_mask(self) -> bool:
        """Whether one call computes it without a mask, or with a small one that its parts share."""
        return self.count > 1 or not self.own or not self.before


def query_groups(
    allowed: Bool[np.ndarray, "stretch stretch"], sizes: Int[np.ndarray, " stretch"]
) -> tuple[list[QueryGroup], list[Span]]:
    """The groups that are worth a call of their own, at most `MOST_GROUPS`, and all other spans.

    Both are in order, and each position is in exactly one of them. The groups are empty if
    they would cover less than `LEAST_SHARE` of the positions. Entries of `allowed` above its
    diagonal are ignored.
    """
    groups: list[QueryGroup] = []
    for group in _causal_groups(allowed, sizes):
        last = groups[-1] if groups else None
        if last is not None and group.own and replace(last, start=group.start, count=1) == group:
            groups[-1] = replace(last, count=last.count + 1)
        else:
            groups.append(group)
    worth = [
        group for group in groups if group.needs_no_mask and group.stop - group.start >= FEW_QUERIES
    ]
    largest = sorted(worth, key=lambda group: group.start - group.stop)[:MOST_GROUPS]
    chosen = sorted(largest, key=lambda group: group.start)
    n = int(sizes.sum())
    if sum(group.stop - group.start for group in chosen) < LEAST_SHARE * n:
        return [], [(0, n)]
    rest: list[Span] = []
    position = 0
    for start, stop in [*((group.start, group.stop) for group in chosen), (n, n)]:
        if position < start:
            rest.append((position, start))
        position = stop
    return chosen, rest


def _causal_groups(
    allowed: Bool[np.ndarray, "stretch stretch"], sizes: Int[np.ndarray, " stretch"]
) -> list[QueryGroup]:
    """Stretches, each joined with the following ones as long as all of them attend alike."""
    begins = np.concatenate([[0], np.cumsum(sizes)]).tolist()
    found, first = [], 0
    while first < len(sizes):
        own, earlier = bool(allowed[first, first]), allowed[first, :first]
        stop = first + 1
        while stop < len(sizes):
            expected = np.concatenate([earlier, np.full(stop - first, own), [own]])
            if (allowed[stop, : stop + 1] != expected).any():
                break
            stop += 1
        before = _joined([(begins[j], begins[j + 1]) for j in earlier.nonzero()[0]])
        found.append(QueryGroup(begins[first], begins[stop] - begins[first], own, before))
        first = stop
    return found


def _joined(spans: Sequence[Span]) -> tuple[Span, ...]:
    """Spans that touch, joined."""
    out: list[Span] = []
    for start, stop in spans:
        if out and out[-1][1] == start:
            out[-1] = (out[-1][0], stop)
        else:
            out.append((start, stop))
    return tuple(out)

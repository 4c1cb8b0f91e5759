"""Schedule: which rows of which layer have to be computed for a set of interventions on one prompt, and no others.

One intervention, usually the plain run, is the *trunk*. Another leaves it in the first layer that treats an edge
differently; interventions that have been treated alike so far share one *branch*. Two boolean walks over runs
(contiguous stretches of a segment) say the rest:

- forwards, which rows a branch has changed: those that lost or gained a key, and those that read a changed one (causality
  keeps everything before them as in the trunk);
- backwards from the answer, which rows anybody still reads.

A branch computes its changed, needed rows over the trunk's keys of all others. Branches of a layer that begin at the
same row are one `Job`, one call of the layer, so all windows of a route, and all routes into `last`, are one batch.
Exact, not approximate: every number that the plain executor computes and the answer depends on is computed here too.

Knows layouts and permissions; no tensors of a model, no memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Int

from mapflow.model_adapters.interventions.language.intervention import Compiled

TRUNK = 0
Runs = Bool[np.ndarray, " run"]


@dataclass(frozen=True, eq=False)
class Job:
    """Branches of one layer that run in one call. Branch numbers count from 1 in each layer; 0 is the trunk.

    `computed` rows leave the layer; `own` ⊇ `computed` rows bring keys and values computed from the branch's hidden
    states; `kept` rows' keys and values are the trunk's. `inherited` own rows' hidden states come from the branch's
    `parents` in the layer before, all others from the trunk. `variants` holds one intervention of each branch.
    """

    branches: tuple[int, ...]
    parents: tuple[int, ...]
    variants: tuple[int, ...]
    reads: Bool[np.ndarray, "branch target source"]
    computed: Bool[np.ndarray, " run"]
    own: Bool[np.ndarray, " run"]
    kept: Bool[np.ndarray, " run"]
    inherited: Bool[np.ndarray, "branch run"]

    @property
    def is_trunk(self) -> bool:
        return self.branches == (TRUNK,)

    @property
    def in_two_steps(self) -> bool:
        """Keys and values first, then the few rows that read them."""
        return bool((self.own != self.computed).any())


@dataclass(frozen=True, eq=False)
class Schedule:
    """`layers[l]` are the jobs of 0-based layer l, the trunk's first; `answers[i]` is the branch of the last layer, or the
    trunk, at whose last row intervention i is answered; `sizes` are the runs' rows."""

    sizes: Int[np.ndarray, " run"]
    layers: tuple[tuple[Job, ...], ...]
    answers: tuple[int, ...]

    def rows(self, runs: Bool[np.ndarray, " run"]) -> int:
        """Number of rows of some runs."""
        return int(self.sizes[runs].sum())

    @property
    def row_layers(self) -> int:
        """Rows that pass through whole layers: the work."""
        return sum(
            len(job.branches) * self.rows(job.computed) for jobs in self.layers for job in jobs
        )

    @property
    def key_row_layers(self) -> int:
        """Rows of which only keys and values are computed: a fraction of a row-layer each."""
        return sum(
            len(job.branches) * self.rows(job.own)
            for jobs in self.layers
            for job in jobs
            if job.in_two_steps
        )

    @property
    def naive_row_layers(self) -> int:
        """What one whole forward pass for every intervention computes."""
        return len(self.answers) * len(self.layers) * int(self.sizes.sum())


def schedule(compiled: Sequence[Compiled], trunk: Compiled | None = None) -> Schedule:
    """For interventions on one prompt, at least one; `trunk` None: the first of them.

    A random trunk stands for a plain one: nobody would share its edges. Prompts of one benchmark differ in their lengths
    but hardly in their runs, so that what does not hang on lengths is worked out once for many of them.
    """
    layout, trunk = compiled[0].layout, trunk or compiled[0]
    segment_of_run, sizes = layout.runs
    shape = _Shape(
        tuple(segment.kind for segment in layout.segments),
        tuple(segment_of_run.tolist()),
        tuple(item.allowed.tobytes() for item in compiled),
        _scattered(compiled),
        None if trunk.budget is not None else trunk.allowed.tobytes(),
    )
    layers, answers = _jobs(shape)
    return Schedule(
        sizes, tuple(tuple(_in_steps(job, sizes) for job in jobs) for jobs in layers), answers
    )


def _in_steps(job: Job, sizes: Int[np.ndarray, " run"]) -> Job:
    """All own rows leave the layer, in one step, unless that would more than double the work."""
    if not job.in_two_steps or 2 * sizes[job.computed].sum() <= sizes[job.own].sum():
        return job
    return replace(job, computed=job.own)


def _scattered(compiled: Sequence[Compiled]) -> tuple[tuple[int, ...], ...]:
    """For each layer and intervention a number that is equal where equal edges are lost at random, 0 where none is."""
    layers = []
    for layer in range(compiled[0].n_layers):
        numbers: dict[object, int] = {}
        draws = [
            (item.random, item.key, item.budget[layer] if item.budget else 0) for item in compiled
        ]
        layers.append(
            tuple(numbers.setdefault(draw, len(numbers) + 1) if draw[-1] else 0 for draw in draws)
        )
    return tuple(layers)


@dataclass(frozen=True)
class _Shape:
    """All that a schedule hangs on besides the runs' sizes: the segments' kinds, each run's segment, what each intervention
    permits between segments, layer by layer (`reads`, as bytes) and loses at random (`scattered`), and the trunk's
    permissions, None for a plain one."""

    kinds: tuple[str, ...]
    segment_of_run: tuple[int, ...]
    reads: tuple[bytes, ...]
    scattered: tuple[tuple[int, ...], ...]
    trunk: bytes | None

    def permitted(self, reads: bytes) -> Bool[np.ndarray, "layer target source"]:
        return np.frombuffer(reads, dtype=bool).reshape(
            len(self.scattered), len(self.kinds), len(self.kinds)
        )


@lru_cache(maxsize=4)  # as many as there are places for the true option, which some routes name
def _jobs(shape: _Shape) -> tuple[tuple[tuple[Job, ...], ...], tuple[int, ...]]:
    """Every layer's jobs, in whose `computed` are only needed rows, and the answers' branches."""
    tree = _Tree(shape)
    return _walk_back(tree, _changed(tree))


class _Tree:
    """Who shares a branch: `parents[l]`, `treatments[l]`, `variants[l]` of branch 1, 2, … and `branch_of[l]` of each
    intervention. `reads[t]` are a treatment's permissions over runs, causal; `scattered[t]` says whether it loses random
    edges besides; `trunk[l]` are the trunk's permissions."""

    def __init__(self, shape: _Shape) -> None:
        self.n_layers = len(shape.scattered)
        segment_of_run = np.array(shape.segment_of_run)
        self.causal = np.tri(len(segment_of_run), dtype=bool)
        video = np.array([shape.kinds[segment] == "frame" for segment in segment_of_run])
        self.after_video = np.logical_or.accumulate(video)
        self.last = np.array([shape.kinds[segment] == "last" for segment in segment_of_run])
        self.reads: list[Bool[np.ndarray, "target source"]] = []
        self.scattered: list[bool] = []
        index: dict[object, int] = {}
        segments = np.ix_(segment_of_run, segment_of_run)
        self.parents: list[list[int]] = []
        self.treatments: list[list[int]] = []
        self.variants: list[list[int]] = []
        self.branch_of: list[list[int]] = []
        before = [TRUNK] * len(shape.reads)
        reads = [shape.permitted(one) for one in shape.reads]
        self.trunk = (
            [self.causal] * self.n_layers
            if shape.trunk is None
            else [permitted[segments] & self.causal for permitted in shape.permitted(shape.trunk)]
        )
        for layer, scattered in enumerate(shape.scattered):
            branches: dict[tuple[int, int], int] = {}
            self.variants.append([])
            current = []
            for variant, permitted in enumerate(reads):
                key = (
                    permitted[layer].tobytes(),
                    layer if scattered[variant] else -1,
                    scattered[variant],
                )
                if key not in index:
                    index[key] = len(index)
                    self.reads.append(permitted[layer][segments] & self.causal)
                    self.scattered.append(scattered[variant] > 0)
                treatment = index[key]
                place = (before[variant], treatment)
                if before[variant] == TRUNK and self._as_trunk(treatment, layer):
                    current.append(TRUNK)
                    continue
                if place not in branches:
                    branches[place] = len(branches) + 1
                    self.variants[-1].append(variant)
                current.append(branches[place])
            self.parents.append([parent for parent, _ in branches])
            self.treatments.append([treatment for _, treatment in branches])
            self.branch_of.append(current)
            before = current

    def _as_trunk(self, treatment: int, layer: int) -> bool:
        return not self.scattered[treatment] and bool(
            (self.reads[treatment] == self.trunk[layer]).all()
        )

    def reads_in(self, layer: int) -> Bool[np.ndarray, "branch target source"]:
        return np.array([self.reads[t] for t in self.treatments[layer]], dtype=bool).reshape(
            -1, *self.causal.shape
        )

    def differing_in(self, layer: int) -> Bool[np.ndarray, "branch run"]:
        """Runs that read other keys than in the trunk in this layer."""
        cut = (self.trunk[layer] ^ self.reads_in(layer)).any(-1)
        scattered = np.array([self.scattered[t] for t in self.treatments[layer]], dtype=bool)
        return cut | scattered[:, None] & self.after_video


def _changed(tree: _Tree) -> list[Bool[np.ndarray, "_ run"]]:
    """`[l][b]`: which runs of layer l's output differ from the trunk's in branch b; row 0 is the trunk itself."""
    changed = [np.zeros((1, len(tree.causal)), dtype=bool)]
    for layer in range(tree.n_layers):
        arriving = changed[-1][np.array(tree.parents[layer], dtype=int)]
        read = (tree.reads_in(layer) & arriving[:, None]).any(-1)
        leaving = arriving | tree.differing_in(layer) | read
        changed.append(np.concatenate([changed[0], leaving]))
    return changed


def _walk_back(
    tree: _Tree, changed: list[Bool[np.ndarray, "_ run"]]
) -> tuple[tuple[tuple[Job, ...], ...], tuple[int, ...]]:
    """Jobs of every layer, from the last to the first, as each says what it needs of the layer before."""
    unchanged_last = np.logical_not(np.any(changed[-1] & tree.last, axis=-1))
    answers = tuple(TRUNK if unchanged_last[branch] else branch for branch in tree.branch_of[-1])
    needed = np.zeros_like(changed[-1])
    needed[list(answers)] = tree.last
    layers: list[tuple[Job, ...]] = []
    for layer in reversed(range(tree.n_layers)):
        parents = np.array(tree.parents[layer], dtype=int)
        arriving, leaving = changed[layer][parents], changed[layer + 1][1:]
        reads = tree.reads_in(layer)
        computed = needed[1:] & leaving
        trunk_computed = needed[0] | (needed[1:] & ~leaving).any(0)
        read = np.any(reads & computed[:, :, None], axis=1)
        own = computed | read & arriving
        before = np.zeros_like(changed[layer])
        trunk_keys = trunk_computed | (tree.trunk[layer] & trunk_computed[:, None]).any(0)
        jobs = []
        for members in _alike(own, computed):
            together = _union(own[members])
            kept = _union(read[members]) & ~together
            inherited = own[members] & arriving[members]
            trunk_keys |= kept
            before[TRUNK] |= (together & ~arriving[members] & (read | computed)[members]).any(0)
            np.logical_or.at(before, parents[members], inherited)
            jobs.append(
                Job(
                    branches=tuple(int(m) + 1 for m in members),
                    parents=tuple(parents[members].tolist()),
                    variants=tuple(tree.variants[layer][m] for m in members),
                    reads=reads[members],
                    computed=_union(computed[members]),
                    own=together,
                    kept=kept,
                    inherited=inherited,
                )
            )
        if trunk_keys.any():
            nobody = np.zeros_like(trunk_keys)
            trunk = Job(
                (TRUNK,),
                (TRUNK,),
                (),
                tree.trunk[layer][None],
                trunk_computed,
                trunk_keys,
                nobody,
                trunk_keys[None],
            )
            jobs.insert(0, trunk)
            before[TRUNK] |= trunk_keys
        layers.append(tuple(jobs))
        needed = before
    return tuple(reversed(layers)), answers


def _union(rows: Bool[np.ndarray, "branch run"]) -> Runs:
    return np.logical_or.reduce(rows, axis=0)


def _alike(
    own: Bool[np.ndarray, "branch run"], computed: Bool[np.ndarray, "branch run"]
) -> list[Int[np.ndarray, " member"]]:
    """Branches that are computed together: those whose rows begin at the same place. Idle ones are in no group."""
    groups: dict[tuple[int, int], list[int]] = {}
    for branch in computed.any(-1).nonzero()[0]:
        start = (int(own[branch].argmax()), int(computed[branch].argmax()))
        groups.setdefault(start, []).append(int(branch))
    return [np.array(members) for members in groups.values()]

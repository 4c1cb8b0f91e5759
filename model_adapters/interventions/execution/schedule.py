"""Schedule: the positions that a set of interventions on one prompt needs in each layer.

One intervention, usually the baseline run, is the *trunk*. Another one leaves the trunk in the
first layer that cuts other edges; interventions with the same cuts so far share one *branch*. Two
boolean walks over stretches (consecutive positions of one segment) decide what is computed:

- forwards, which stretches of a branch differ from the trunk: those that lost or gained a key, and
  those that attend to a differing one (by causality, all stretches before them equal the trunk's);
- backwards from the answer, which stretches any later computation uses.

A branch computes its differing, used stretches, and takes the keys of all others from the trunk.
Branches of a layer that begin at the same stretch are one `Job`, one call of the layer. So all
windows of a route, and all routes into `last`, are one batch. This is exact: every number that the
answer depends on is computed as in a forward pass over all positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Int

from mapflow.model_adapters.interventions.language.intervention import Compiled

TRUNK = 0
Stretches = Bool[np.ndarray, " stretch"]


@dataclass(frozen=True, eq=False)
class Job:
    """Branches of one layer that run in one call.

    Branches count from 1 in each layer; 0 is the trunk.
    Positions of the stretches `computed` leave the layer. The stretches `own`, a superset, bring
    keys and values of the branch; the keys and values of `kept` are the trunk's. The hidden states
    of `inherited` stretches come from the branch's parent in the layer before, those of other own
    stretches from the trunk. `variants` holds one intervention of each branch.
    """

    branches: tuple[int, ...]
    parents: tuple[int, ...]
    variants: tuple[int, ...]
    allowed: Bool[np.ndarray, "branch target source"]
    computed: Stretches
    own: Stretches
    kept: Stretches
    inherited: Bool[np.ndarray, "branch stretch"]

    @property
    def is_trunk(self) -> bool:
        return self.branches == (TRUNK,)

    @property
    def in_two_steps(self) -> bool:
        """Whether keys and values come first, then the few positions that attend to them."""
        return bool((self.own != self.computed).any())


@dataclass(frozen=True, eq=False)
class Schedule:
    """The jobs of all layers: `layers[l]` are those of 0-based layer l, the trunk's first.

    `answers[i]` is the branch of the last layer whose last position answers intervention i.
    `sizes` are the stretches' positions. A row-layer is one position that passes through one
    layer.
    """

    sizes: Int[np.ndarray, " stretch"]
    layers: tuple[tuple[Job, ...], ...]
    answers: tuple[int, ...]

    def count(self, chosen: Stretches) -> int:
        """The number of positions of some stretches."""
        return int(self.sizes[chosen].sum())

    @property
    def row_layers(self) -> int:
        """The work: positions that pass through whole layers."""
        return sum(
            len(job.branches) * self.count(job.computed) for jobs in self.layers for job in jobs
        )

    @property
    def key_row_layers(self) -> int:
        """Positions of which only keys and values are computed, at a fraction of the work."""
        return sum(
            len(job.branches) * self.count(job.own)
            for jobs in self.layers
            for job in jobs
            if job.in_two_steps
        )

    @property
    def naive_row_layers(self) -> int:
        """The work of one whole forward pass for every intervention."""
        return len(self.answers) * len(self.layers) * int(self.sizes.sum())


def schedule(compiled: Sequence[Compiled], trunk: Compiled | None = None) -> Schedule:
    """For at least one intervention on one prompt; `trunk` None means the first of them.

    If the trunk is random, the run without cuts is used instead, as no branch shares random edges.
    Prompts of one benchmark differ in their lengths but hardly in their stretches, so everything
    that does not depend on lengths is cached.
    """
    layout, trunk = compiled[0].layout, trunk or compiled[0]
    segment, sizes = layout.runs
    shape = _Shape(
        tuple(one.kind for one in layout.segments),
        tuple(segment.tolist()),
        tuple(item.allowed.tobytes() for item in compiled),
        _draws(compiled),
        None if trunk.budget is not None else trunk.allowed.tobytes(),
    )
    layers, answers = _jobs(shape)
    return Schedule(
        sizes, tuple(tuple(_in_steps(job, sizes) for job in jobs) for jobs in layers), answers
    )


def _in_steps(job: Job, sizes: Int[np.ndarray, " stretch"]) -> Job:
    """All own positions leave the layer, in one step, unless that more than doubles the work."""
    if not job.in_two_steps or 2 * sizes[job.computed].sum() <= sizes[job.own].sum():
        return job
    return replace(job, computed=job.own)


def _draws(compiled: Sequence[Compiled]) -> tuple[tuple[int, ...], ...]:
    """For each layer and intervention a number: equal for equal random edges, 0 without any."""
    layers = []
    for layer in range(compiled[0].n_layers):
        numbers: dict[object, int] = {}
        draws = [item.draw(layer) for item in compiled]
        layers.append(
            tuple(0 if one is None else numbers.setdefault(one, len(numbers) + 1) for one in draws)
        )
    return tuple(layers)


@dataclass(frozen=True)
class _Shape:
    """Everything that a schedule depends on besides the stretches' sizes.

    `allowed` are each intervention's allowed edges between segments, layer by layer, as bytes;
    `draws` numbers its random edges; `trunk` is as `allowed`, None for the run without cuts.
    """

    kinds: tuple[str, ...]
    segment_of_stretch: tuple[int, ...]
    allowed: tuple[bytes, ...]
    draws: tuple[tuple[int, ...], ...]
    trunk: bytes | None

    def array(self, allowed: bytes) -> Bool[np.ndarray, "layer target source"]:
        n_segments = len(self.kinds)
        shape = len(self.draws), n_segments, n_segments
        return np.frombuffer(allowed, dtype=bool).reshape(shape)


@lru_cache(maxsize=4)  # one entry for each place of the true option, which some routes name
def _jobs(shape: _Shape) -> tuple[tuple[tuple[Job, ...], ...], tuple[int, ...]]:
    """Every layer's jobs, `computed` holding used stretches only, and the answers' branches."""
    tree = _Tree(shape)
    return _walk_back(tree, _differing(tree))


class _Tree:
    """The branches that interventions share in each layer.

    `parents[l]`, `cuts[l]` and `variants[l]` describe branches 1, 2, … of layer l: its branch in
    the layer before, the number of its cuts, and one of its interventions. `branch_of[l]` is the
    branch of each intervention. `allowed[c]` are the allowed edges between stretches under cuts c,
    causal, and `random[c]` says whether random edges are cut besides. `trunk[l]` are the trunk's
    allowed edges.
    """

    def __init__(self, shape: _Shape) -> None:
        self.n_layers = len(shape.draws)
        segment = np.array(shape.segment_of_stretch)
        kinds = np.array(shape.kinds)[segment]
        self.causal = np.tri(len(segment), dtype=bool)
        self.after_video = np.logical_or.accumulate(kinds == "frame")
        self.last = kinds == "last"
        self.allowed: list[Bool[np.ndarray, "target source"]] = []
        self.random: list[bool] = []
        self.parents: list[list[int]] = []
        self.cuts: list[list[int]] = []
        self.variants: list[list[int]] = []
        self.branch_of: list[list[int]] = []
        pairs = np.ix_(segment, segment)
        self.trunk = (
            [self.causal] * self.n_layers
            if shape.trunk is None
            else [allowed[pairs] & self.causal for allowed in shape.array(shape.trunk)]
        )
        numbers: dict[object, int] = {}
        of_variants = [shape.array(one) for one in shape.allowed]
        before = [TRUNK] * len(of_variants)
        for layer, draws in enumerate(shape.draws):
            branches: dict[tuple[int, int], int] = {}
            self.variants.append([])
            current = []
            for variant, allowed in enumerate(of_variants):
                draw = draws[variant]
                key = allowed[layer].tobytes(), layer if draw else -1, draw
                if key not in numbers:
                    numbers[key] = len(numbers)
                    self.allowed.append(allowed[layer][pairs] & self.causal)
                    self.random.append(draw > 0)
                place = before[variant], numbers[key]
                if before[variant] == TRUNK and self._as_trunk(numbers[key], layer):
                    current.append(TRUNK)
                    continue
                if place not in branches:
                    branches[place] = len(branches) + 1
                    self.variants[-1].append(variant)
                current.append(branches[place])
            self.parents.append([parent for parent, _ in branches])
            self.cuts.append([cuts for _, cuts in branches])
            self.branch_of.append(current)
            before = current

    def _as_trunk(self, cuts: int, layer: int) -> bool:
        return not self.random[cuts] and bool((self.allowed[cuts] == self.trunk[layer]).all())

    def allowed_in(self, layer: int) -> Bool[np.ndarray, "branch target source"]:
        of_branches = [self.allowed[cuts] for cuts in self.cuts[layer]]
        return np.array(of_branches, dtype=bool).reshape(-1, *self.causal.shape)

    def cut_otherwise(self, layer: int) -> Bool[np.ndarray, "branch stretch"]:
        """Stretches that attend to other keys than in the trunk in this layer."""
        otherwise = (self.trunk[layer] ^ self.allowed_in(layer)).any(-1)
        random = np.array([self.random[cuts] for cuts in self.cuts[layer]], dtype=bool)
        return otherwise | random[:, None] & self.after_video


def _differing(tree: _Tree) -> list[Bool[np.ndarray, "_ stretch"]]:
    """`[l][b]`: which stretches that enter layer l differ from the trunk's in branch b.

    The last entry describes the last layer's output; row 0 is the trunk itself.
    """
    differing = [np.zeros((1, len(tree.causal)), dtype=bool)]
    for layer in range(tree.n_layers):
        arriving = differing[-1][np.array(tree.parents[layer], dtype=int)]
        attending = (tree.allowed_in(layer) & arriving[:, None]).any(-1)
        leaving = arriving | tree.cut_otherwise(layer) | attending
        differing.append(np.concatenate([differing[0], leaving]))
    return differing


def _walk_back(
    tree: _Tree, differing: list[Bool[np.ndarray, "_ stretch"]]
) -> tuple[tuple[tuple[Job, ...], ...], tuple[int, ...]]:
    """The jobs of every layer, found from the last to the first: each layer tells what it uses."""
    answered_by_trunk = np.logical_not(np.any(differing[-1] & tree.last, axis=-1))
    answers = tuple(TRUNK if answered_by_trunk[branch] else branch for branch in tree.branch_of[-1])
    used = np.zeros_like(differing[-1])
    used[list(answers)] = tree.last
    layers: list[tuple[Job, ...]] = []
    for layer in reversed(range(tree.n_layers)):
        parents = np.array(tree.parents[layer], dtype=int)
        arriving, leaving = differing[layer][parents], differing[layer + 1][1:]
        allowed = tree.allowed_in(layer)
        computed = used[1:] & leaving
        trunk_computed = used[TRUNK] | (used[1:] & ~leaving).any(0)
        keys = np.any(allowed & computed[:, :, None], axis=1)
        own = computed | keys & arriving
        used = np.zeros_like(differing[layer])
        trunk_keys = trunk_computed | (tree.trunk[layer] & trunk_computed[:, None]).any(0)
        jobs = []
        for members in _together(own, computed):
            every_own = _union(own[members])
            kept = _union(keys[members]) & ~every_own
            inherited = own[members] & arriving[members]
            trunk_keys |= kept
            used[TRUNK] |= (every_own & ~arriving[members] & (keys | computed)[members]).any(0)
            np.logical_or.at(used, parents[members], inherited)
            jobs.append(
                Job(
                    branches=tuple(int(m) + 1 for m in members),
                    parents=tuple(parents[members].tolist()),
                    variants=tuple(tree.variants[layer][m] for m in members),
                    allowed=allowed[members],
                    computed=_union(computed[members]),
                    own=every_own,
                    kept=kept,
                    inherited=inherited,
                )
            )
        if trunk_keys.any():
            jobs.insert(0, _trunk_job(tree.trunk[layer], trunk_computed, trunk_keys))
            used[TRUNK] |= trunk_keys
        layers.append(tuple(jobs))
    return tuple(reversed(layers)), answers


def _trunk_job(
    allowed: Bool[np.ndarray, "target source"], computed: Stretches, own: Stretches
) -> Job:
    return Job((TRUNK,), (TRUNK,), (), allowed[None], computed, own, np.zeros_like(own), own[None])


def _union(chosen: Bool[np.ndarray, "branch stretch"]) -> Stretches:
    return np.logical_or.reduce(chosen, axis=0)


def _together(
    own: Bool[np.ndarray, "branch stretch"], computed: Bool[np.ndarray, "branch stretch"]
) -> list[Int[np.ndarray, " member"]]:
    """Branches that run in one call: those that begin at the same stretch; no idle ones."""
    groups: dict[tuple[int, int], list[int]] = {}
    for branch in computed.any(-1).nonzero()[0]:
        start = (int(own[branch].argmax()), int(computed[branch].argmax()))
        groups.setdefault(start, []).append(int(branch))
    return [np.array(members) for members in groups.values()]

"""Intervention: which attention edges are cut, and its compiled form for one prompt.

An intervention is a tuple of policies; an edge is cut if any of them cuts it. With `keep`, only the
edges that the policies name are kept. Compiling it for a prompt and a depth gives `allowed`, a
small boolean matrix per layer, and, for random blocking alone, real edges.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import get_args

import numpy as np
from jaxtyping import Bool, Int

from mapflow.model_adapters.interventions.language.layout import Segment, SegmentKind, TokenLayout
from mapflow.model_adapters.interventions.language.own_edges import OwnEdges
from mapflow.model_adapters.interventions.language.pathways import PathwayRanges
from mapflow.model_adapters.interventions.language.policies import Policy, RandomBlocking
from mapflow.model_adapters.interventions.language.policies.policy import Cuts, no_cuts
from mapflow.model_adapters.interventions.language.segment_masks import (
    count_edges,
    token_mask,
    without_keys,
)
from mapflow.model_adapters.interventions.language.tensors import Device, Tensor
from mapflow.results.contract.errors import MapflowError


@dataclass(frozen=True)
class Intervention:
    """A union of policies; without policies it is `full`.

    `str()` is the canonical one-line form, which parses to an equal intervention. If a file names
    the intervention, `name` replaces it.

    Raises MapflowError for two random policies, for two early exits, and for `keep` with anything
    but routes. The complement of `effective` is not what "keep effective" suggests, and the
    complement of a random choice is another random choice.
    """

    policies: tuple[Policy, ...] = ()
    keep: bool = False
    name: str | None = None

    def __post_init__(self) -> None:
        if self.keep and not (self.policies and all(one.is_route for one in self.policies)):
            raise MapflowError(f"intervention {self.expression!r}: 'keep' takes routes")
        for once in (one.once_as for one in self.policies if one.once_as):
            if sum(one.once_as == once for one in self.policies) > 1:
                raise MapflowError(f"intervention {self.expression!r}: one {once} at most")

    @property
    def expression(self) -> str:
        """The canonical one-line form, whatever the name."""
        body = "+".join(map(str, self.policies)) or "full"
        return f"keep:{body}" if self.keep else body

    @property
    def random(self) -> RandomBlocking | None:
        """The random policy, of which an intervention has at most one."""
        return next(
            (policy for policy in self.policies if isinstance(policy, RandomBlocking)), None
        )

    @property
    def early_exit(self) -> int | None:
        """The (1-based) layer after which the answer is read; None for the last one."""
        return next((one.early_exit for one in self.policies if one.early_exit), None)

    @property
    def seed(self) -> int | None:
        """The seed of random blocking; None for everything that is not random."""
        return self.random.seed if self.random else None

    @property
    def scaled_from(self) -> str | None:
        """The model whose layer ranges it borrows, scaled to another depth."""
        return next((one.scaled_from for one in self.policies if one.scaled_from), None)

    def describe(self, pathways: PathwayRanges | None) -> str:
        """The expression with the model's own ranges filled in: what a reader needs to repeat it
        elsewhere.
        """
        policies = tuple(policy.with_ranges(pathways) for policy in self.policies)
        return Intervention(policies, self.keep).expression

    def resolve(self, find: Callable[[str, int], PathwayRanges], n_layers: int) -> Intervention:
        """With the ranges of `scale=MODEL` filled in: `find(MODEL, n_layers)` gives that model's,
        scaled to this depth.
        """

        policies = tuple(policy.resolve(find, n_layers) for policy in self.policies)
        return replace(self, policies=policies)

    def check(self, n_layers: int, pathways: PathwayRanges | None) -> None:
        """Raises MapflowError if the model lacks layers or ranges that this needs, before any
        prompt is read.
        """
        kinds = [Segment(kind) for kind in get_args(SegmentKind)]
        indexed = [Segment(kind, index) for kind in ("frame", "option") for index in range(1, 100)]
        everything = TokenLayout.from_runs(
            [(segment, 1) for segment in [*kinds, *indexed]], true_option=0
        )
        self.compile(everything, n_layers, pathways)

    def compile(
        self,
        layout: TokenLayout,
        n_layers: int,
        pathways: PathwayRanges | None = None,
        key: str = "",
        own: OwnEdges | None = None,
    ) -> Compiled:
        """For one prompt (its `key`, the question's id, selects random edges) and a model of
        `n_layers`.

        `own` are the model's own edges for this prompt; None means causal attention in all layers.
        Raises MapflowError for layers that the model or segments that the prompt lacks.
        """
        cuts = _cuts(self.policies, layout.segments, layout.true_option, n_layers, pathways)
        budget = self.random.budget(layout, n_layers, pathways, own) if self.random else None
        return Compiled(
            layout, cuts if self.keep else ~cuts, key, self.random, budget, self.early_exit, own
        )

    def __str__(self) -> str:
        return self.name or self.expression


@lru_cache(maxsize=2048)
def _cuts(
    policies: tuple[Policy, ...],
    segments: tuple[Segment, ...],
    true_option: int | None,
    n_layers: int,
    pathways: PathwayRanges | None,
) -> Cuts:
    """All policies' cuts. They depend on the segments of a prompt, not on their lengths, so a
    benchmark's prompts share them.
    """
    layout = TokenLayout(segments, np.arange(len(segments)), true_option)
    cuts = no_cuts(layout, n_layers)
    for policy in policies:
        cuts |= policy.cuts(layout, n_layers, pathways)
    return cuts


@dataclass(frozen=True)
class Compiled:
    """An intervention on one prompt. `allowed[layer, target, source]`: queries of `target` may
    attend to keys of `source`, as far as the model has the edge (`own`; None: causal attention).
    """

    layout: TokenLayout
    allowed: Bool[np.ndarray, "layer target source"]
    key: str = ""
    random: RandomBlocking | None = None
    budget: Sequence[int] | None = None
    early_exit: int | None = None
    own: OwnEdges | None = None

    @property
    def n_layers(self) -> int:
        return self.allowed.shape[0]

    @property
    def depth(self) -> int:
        """Number of layers that run: all without an early exit."""
        return self.n_layers if self.early_exit is None else self.early_exit

    @property
    def row_layers(self) -> int:
        """Positions times layers that run; without an early exit n × n_layers."""
        return len(self.layout) * self.depth

    def blocked(self, layer: int, device: Device = "cpu") -> Bool[Tensor, "query key"] | None:
        """The edges that random blocking cuts in a 0-based layer; None if it cuts none."""
        if self.random is None or not self.budget or not self.budget[layer]:
            return None
        own = self.own.masks[layer] if self.own else None
        return self.random.blocked(self.layout, layer, self.budget[layer], self.key, device, own)

    def draw(self, layer: int) -> Hashable | None:
        """Identifies the random edges cut in a 0-based layer: equal draws cut equal edges.

        None where no random edges are cut.
        """
        if not self.budget or not self.budget[layer]:
            return None
        return self.random, self.key, self.budget[layer]

    def token_mask(self, layer: int) -> Bool[Tensor, "query key"]:
        """One 0-based layer's mask: True where query may attend to key."""
        import torch

        segment_of = self.layout.segment_of
        if self.own is None:
            mask = torch.from_numpy(token_mask(self.allowed[layer], segment_of))
        else:
            allowed = torch.from_numpy(self.allowed[layer][segment_of][:, segment_of])
            mask = self.own.mask(layer, len(self.layout)) & allowed
        blocked = self.blocked(layer)
        return mask if blocked is None else mask & ~blocked

    @cached_property
    def edges_by_layer(self) -> Int[np.ndarray, " layer"]:
        """Edges kept in each layer, for one head; without n × n masks unless random blocking is
        combined with other cuts.
        """
        if self.random is None:
            return count_edges(self.allowed, self.layout.segment_of, self.own)
        if self.allowed.all():
            return self.total_by_layer - np.array(self.budget)
        return np.array([int(self.token_mask(layer).sum()) for layer in range(self.n_layers)])

    @property
    def total_by_layer(self) -> Int[np.ndarray, " layer"]:
        """The edges that the model has in each layer: n(n+1)/2 with causal attention."""
        n = len(self.layout)
        if self.own is None:
            return np.full(self.n_layers, n * (n + 1) // 2)
        return np.array([self.own.total(layer, n) for layer in range(self.n_layers)])

    @property
    def edges_kept(self) -> int:
        """Edges kept over all layers (in the authors' code: new_attention_cnt)."""
        return int(self.edges_by_layer.sum())

    @property
    def edges_total(self) -> int:
        """All edges that the model has, over all layers (in the authors' code:
        base_attention_cnt)."""
        return int(self.total_by_layer.sum())

    @property
    def n_empty_rows(self) -> int:
        """Query positions, over all layers, without any allowed key: they attend to nothing and
        give zeros.
        """
        if self.own is not None:
            masks = [self.token_mask(layer) for layer in range(self.depth)]
            return sum(int((~mask.any(1)).sum()) for mask in masks)
        segment, sizes = self.layout.runs
        empty = without_keys(self.allowed[: self.depth, segment][:, :, segment])
        return int((empty * sizes).sum())

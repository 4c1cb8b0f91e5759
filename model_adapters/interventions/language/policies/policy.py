"""Policy: a rule that says, for a prompt and a model depth, which segment may not read which in which layer."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool

from mapflow.model_adapters.interventions.language.layout import TokenLayout
from mapflow.model_adapters.interventions.language.pathways import PathwayRanges
from mapflow.model_adapters.interventions.language.route import Route

Cuts = Bool[np.ndarray, "layer target source"]


@runtime_checkable
class Policy(Protocol):
    """`str(policy)` is its canonical one-line form, which parses back to an equal policy."""

    def cuts(self, layout: TokenLayout, n_layers: int, pathways: PathwayRanges | None) -> Cuts:
        """True where queries of `target` lose keys of `source`. Raises MapflowError for layers the model lacks."""
        ...


def cut_route(cuts: Cuts, route: Route, layout: TokenLayout, layers: list[int] | range) -> None:
    """Cut `route` in 0-based `layers`, in place."""
    cuts[list(layers)] |= route.edges(layout)


def no_cuts(layout: TokenLayout, n_layers: int) -> Cuts:
    """The empty set of cuts."""
    n_segments = len(layout.segments)
    return np.zeros((n_layers, n_segments, n_segments), dtype=bool)

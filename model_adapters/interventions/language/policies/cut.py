"""Cut named routes: `video->question@6-20` in a range of layers, `knockout:video->last@center=12,window=9` in a window."""

from __future__ import annotations

from dataclasses import dataclass

from mapflow.model_adapters.interventions.language.layers import LayerSpan, Window
from mapflow.model_adapters.interventions.language.layout import TokenLayout
from mapflow.model_adapters.interventions.language.pathways import PathwayRanges
from mapflow.model_adapters.interventions.language.policies.policy import Cuts, cut_route, no_cuts
from mapflow.model_adapters.interventions.language.route import Route


@dataclass(frozen=True)
class Cut:
    """One route, cut in `layers` (None: in every layer)."""

    route: Route
    layers: LayerSpan | None = None

    def cuts(self, layout: TokenLayout, n_layers: int, pathways: PathwayRanges | None) -> Cuts:
        cuts = no_cuts(layout, n_layers)
        cut_route(
            cuts,
            self.route,
            layout,
            self.layers.indices(n_layers) if self.layers else range(n_layers),
        )
        return cuts

    def __str__(self) -> str:
        return f"{self.route}@{self.layers}" if self.layers else str(self.route)


@dataclass(frozen=True)
class Knockout:
    """One route, cut in a window of layers (paper, Section 3)."""

    route: Route
    window: Window

    def cuts(self, layout: TokenLayout, n_layers: int, pathways: PathwayRanges | None) -> Cuts:
        cuts = no_cuts(layout, n_layers)
        cut_route(cuts, self.route, layout, self.window.indices(n_layers))
        return cuts

    def __str__(self) -> str:
        return f"knockout:{self.route}@{self.window}"

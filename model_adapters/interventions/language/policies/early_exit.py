"""Early exit: `early-exit@20` reads the answer from layer 20, through the final norm and the head; later layers do not run."""

from __future__ import annotations

from dataclasses import dataclass

from mapflow.model_adapters.interventions.language.layers import LayerSpan
from mapflow.model_adapters.interventions.language.layout import TokenLayout
from mapflow.model_adapters.interventions.language.pathways import PathwayRanges
from mapflow.model_adapters.interventions.language.policies.policy import Cuts, no_cuts


@dataclass(frozen=True)
class EarlyExit:
    """The model ends after (1-based) `layer`. As cuts: nothing reads anything in the layers that do not run, so that
    their edges count as not kept and no path leads through them."""

    layer: int

    def cuts(self, layout: TokenLayout, n_layers: int, pathways: PathwayRanges | None) -> Cuts:
        cuts = no_cuts(layout, n_layers)
        cuts[len(LayerSpan(1, self.layer).indices(n_layers)) :] = True
        return cuts

    def __str__(self) -> str:
        return f"early-exit@{self.layer}"

"""Early exit: `early-exit@20` applies the final norm and the head to layer 20's output.

Later layers do not run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from mapflow.model_adapters.interventions.language.layers import LayerSpan
from mapflow.model_adapters.interventions.language.layout import TokenLayout
from mapflow.model_adapters.interventions.language.pathways import PathwayRanges
from mapflow.model_adapters.interventions.language.policies.policy import Cuts, Policy, no_cuts
from mapflow.results.contract.errors import MapflowError


@dataclass(frozen=True)
class EarlyExit(Policy):
    """The model ends after (1-based) `layer`. All edges of the layers after it are cut, so that
    they count as not kept and no path leads through them.
    """

    names: ClassVar[tuple[str, ...]] = ("early-exit",)
    once_as: ClassVar[str | None] = "early exit"
    layer: int

    @classmethod
    def claims(cls, term: str) -> bool:
        return re.split("[:@]", term)[0].strip() in cls.names

    @classmethod
    def parse(cls, term: str) -> EarlyExit:
        """From "early-exit@LAYER"."""
        match = re.fullmatch(r"early-exit\s*@\s*0*([1-9]\d{0,5})", term)
        if not match:
            raise MapflowError(
                f"{term!r} is not of the form early-exit@LAYER, with layers counted from 1"
            )
        return cls(int(match[1]))

    @property
    def early_exit(self) -> int | None:
        return self.layer

    def cuts(self, layout: TokenLayout, n_layers: int, pathways: PathwayRanges | None) -> Cuts:
        cuts = no_cuts(layout, n_layers)
        cuts[len(LayerSpan(1, self.layer).indices(n_layers)) :] = True
        return cuts

    def __str__(self) -> str:
        return f"early-exit@{self.layer}"

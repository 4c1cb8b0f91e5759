"""The instrument: which attention edges exist in which layer of an unmodified transformers model.

Names are imported when they are first used (PEP 562): parsing an intervention needs neither torch
nor transformers, which take seconds to import.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mapflow.model_adapters.interventions.execution.attention_weights import attention_weights
    from mapflow.model_adapters.interventions.execution.batch_masks import BatchMasks
    from mapflow.model_adapters.interventions.execution.decoder import Decoder
    from mapflow.model_adapters.interventions.execution.decoder_inputs import DecoderInputs
    from mapflow.model_adapters.interventions.kernels.attention import apply
    from mapflow.model_adapters.interventions.language.grammar import (
        parse_intervention,
        parse_interventions,
        read_interventions,
    )
    from mapflow.model_adapters.interventions.language.intervention import Compiled, Intervention
    from mapflow.model_adapters.interventions.language.layers import LayerSpan, Window
    from mapflow.model_adapters.interventions.language.layout import Segment, TokenLayout
    from mapflow.model_adapters.interventions.language.pathways import PathwayRanges
    from mapflow.model_adapters.interventions.language.reachability import (
        OpenPath,
        certificate,
        reachable,
    )
    from mapflow.model_adapters.interventions.language.route import Route

__all__ = [
    "BatchMasks",
    "Compiled",
    "Decoder",
    "DecoderInputs",
    "Intervention",
    "LayerSpan",
    "OpenPath",
    "PathwayRanges",
    "Route",
    "Segment",
    "TokenLayout",
    "Window",
    "apply",
    "attention_weights",
    "certificate",
    "parse_intervention",
    "parse_interventions",
    "reachable",
    "read_interventions",
]

_MODULES = {
    "execution.attention_weights": ("attention_weights",),
    "execution.batch_masks": ("BatchMasks",),
    "execution.decoder": ("Decoder",),
    "execution.decoder_inputs": ("DecoderInputs",),
    "kernels.attention": ("apply",),
    "language.grammar": ("parse_intervention", "parse_interventions", "read_interventions"),
    "language.intervention": ("Compiled", "Intervention"),
    "language.layers": ("LayerSpan", "Window"),
    "language.layout": ("Segment", "TokenLayout"),
    "language.pathways": ("PathwayRanges",),
    "language.reachability": ("OpenPath", "certificate", "reachable"),
    "language.route": ("Route",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)

"""The instrument: which attention edges exist in which layer. Knows no family, no benchmark, no prompt.

Four ideas: a `TokenLayout` names every position of a prompt; a `Route` is a bundle of edges between names; an
`Intervention` cuts routes in layers and compiles to a small boolean matrix a layer; the attention function applies
that matrix inside an unmodified transformers model (`Decoder`, `apply`).
"""

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

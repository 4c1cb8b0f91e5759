"""Liveness: the positions of each layer on which the answer still depends.

The answer is read at the last position after the last layer. Going back from there, a position of a
layer's output is live if a live position of the next layer attends to it, or if it is itself live
there. Unused positions can be skipped without changing the answer.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool

from mapflow.model_adapters.interventions.language.intervention import Compiled


def live_segments(compiled: Compiled) -> Bool[np.ndarray, "depth segment"]:
    """`[d, s]`: True if segment s must be computed as output of layer d.

    d = 0 means the embeddings, d = n_layers the last layer.

    After an early exit no segment is. Random blocking is ignored, so that too many segments may be
    live but never too few.
    """
    layout = compiled.layout
    live = [layout.select("last")]
    for layer in (compiled.allowed & layout.causal)[: compiled.depth][::-1]:
        live.append(live[-1] | layer[live[-1]].any(0))
    unused = [np.zeros_like(live[0])] * (compiled.n_layers - compiled.depth)
    return np.stack([*reversed(live), *unused])


def live_row_layers(compiled: Compiled) -> int:
    """Positions times layers that have to be computed; a full run computes n × n_layers."""
    return int((live_segments(compiled)[1:] * compiled.layout.sizes).sum())

"""Row liveness: which rows of which layer does the answer still depend on?

The answer is read at the last position after the last layer. Walking back from there, a row of a layer's output is
live only if a live row of the next layer reads it or it is itself carried on. Rows that nobody reads any more need
not be computed: exactly, not approximately (design.md, Speed).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool

from mapflow.model_adapters.interventions.language.intervention import Compiled


def live_segments(compiled: Compiled) -> Bool[np.ndarray, "depth segment"]:
    """`[d, s]`: must segment s be computed as output of layer d (d = 0: the embeddings, d = n_layers: the end)?

    After an early exit nothing is. With random blocking the segment cuts alone count, which errs on the safe side.
    """
    layout = compiled.layout
    live = [layout.select("last")]
    for layer in (compiled.allowed & layout.causal)[: compiled.depth][::-1]:
        live.append(live[-1] | layer[live[-1]].any(0))
    unused = [np.zeros_like(live[0])] * (compiled.n_layers - compiled.depth)
    return np.stack([*reversed(live), *unused])


def live_row_layers(compiled: Compiled) -> int:
    """Rows times layers that have to be computed; a full run computes n × n_layers."""
    return int((live_segments(compiled)[1:] * compiled.layout.sizes).sum())

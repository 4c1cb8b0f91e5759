"""The one table of noise bounds: how far two computations of the same result may differ.

The bounds hold for computations that differ only in the order of sums: another kernel, another
batch, a cache. A wrong mask differs by far more.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Noise(NamedTuple):
    """Bounds for one precision.

    Attributes:
        logits: relative distance of logits or hidden states (`distance`). Several times the
            rounding error of the format (2^-53, 2^-24, 2^-11, 2^-8), as errors add up over layers.
        probability: absolute difference of one token's probability: a few hundred roundings of
            float32, a few of the half precisions. Logits are float32 whatever the weights are.
    """

    logits: float
    probability: float


NOISE = {
    torch.float64: Noise(logits=1e-11, probability=1e-6),
    torch.float32: Noise(logits=1e-4, probability=5e-5),
    torch.float16: Noise(logits=1e-2, probability=1e-2),
    torch.bfloat16: Noise(logits=5e-2, probability=5e-2),
}
"""By the precision of the weights."""


def distance(one: Float[Tensor, "*shape"], reference: Float[Tensor, "*shape"]) -> float:
    """‖one − reference‖ / ‖reference‖; infinite if either is not finite."""
    one, reference = one.double(), reference.double()
    if not (torch.isfinite(one).all() and torch.isfinite(reference).all()):
        return float("inf")
    return float((one - reference).norm() / reference.norm().clamp_min(1e-300))

"""How far two ways to the same logits may lie apart, by precision: the one table of noise bounds.

The measure is relative: the Euclidean length of the difference over that of the reference. The
bounds hold for ways that differ in the order of sums alone (another kernel, another batch, a
cache). Several times the rounding error of a format (2^-53, 2^-24, 2^-11, 2^-8), since it adds up
over layers, and far below what a wrong mask does.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

BOUNDS = {torch.float64: 1e-11, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}


def distance(one: Float[Tensor, "*shape"], reference: Float[Tensor, "*shape"]) -> float:
    """‖one − reference‖ / ‖reference‖; infinite where either is not finite."""
    one, reference = one.double(), reference.double()
    if not (torch.isfinite(one).all() and torch.isfinite(reference).all()):
        return float("inf")
    return float((one - reference).norm() / reference.norm().clamp_min(1e-300))

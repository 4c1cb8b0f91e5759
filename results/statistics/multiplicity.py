"""Many comparisons at once: Holm where claims are confirmed, Benjamini-Hochberg where one explores.

Holm is written out: statsmodels' `multipletests` collects garbage on every call, which takes longer than a whole
comparison of two runs. The tests hold it against statsmodels.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.stats import false_discovery_control

from mapflow.results.contract.errors import MapflowError


def holm(p_values: Float[np.ndarray, " tests"]) -> Float[np.ndarray, " tests"]:
    """Adjusted p-values; rejecting those ≤ α keeps the chance of any false claim ≤ α (Holm 1979)."""
    _check(p_values)
    ascending = np.argsort(p_values, kind="stable")
    stepped = np.maximum.accumulate(p_values[ascending] * np.arange(len(p_values), 0, -1))
    adjusted = np.empty(len(p_values))
    adjusted[ascending] = np.minimum(1.0, stepped)
    return adjusted


def benjamini_hochberg(p_values: Float[np.ndarray, " tests"]) -> Float[np.ndarray, " tests"]:
    """Adjusted p-values; rejecting those ≤ α keeps the expected share of false claims ≤ α (1995)."""
    _check(p_values)
    return np.asarray(false_discovery_control(p_values)) if len(p_values) else np.empty(0)


def _check(p_values: Float[np.ndarray, " tests"]) -> None:
    outside = ~((p_values >= 0) & (p_values <= 1))
    if outside.any():
        raise MapflowError(
            f"p-values {p_values[outside].tolist()} lie outside 0 … 1; correct only tests that were made"
        )

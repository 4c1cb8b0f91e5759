"""Many comparisons at once: Holm where claims are confirmed, Benjamini-Hochberg where one explores."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from mapflow.results.errors import MapflowError
from statsmodels.stats.multitest import multipletests


def holm(p_values: Float[np.ndarray, " tests"]) -> Float[np.ndarray, " tests"]:
    """Adjusted p-values; rejecting those ≤ α keeps the chance of any false claim ≤ α (Holm 1979)."""
    return _adjusted(p_values, "holm")


def benjamini_hochberg(p_values: Float[np.ndarray, " tests"]) -> Float[np.ndarray, " tests"]:
    """Adjusted p-values; rejecting those ≤ α keeps the expected share of false claims ≤ α (1995)."""
    return _adjusted(p_values, "fdr_bh")


def _adjusted(p_values: np.ndarray, method: str) -> np.ndarray:
    if not np.all((p_values >= 0) & (p_values <= 1)):
        raise MapflowError(
            f"p-values {p_values[~((p_values >= 0) & (p_values <= 1))].tolist()} lie outside 0 … 1"
        )
    return p_values.copy() if len(p_values) == 0 else np.asarray(multipletests(p_values, method=method)[1])

"""Clusters of questions: sums and the design effect.

Questions about one video are correlated. The design effect is the variance of a mean over clusters
divided by its variance over independent questions. So n / design effect is the number of
independent questions with the same information (Kish, Survey Sampling, 1965).

`accuracy` and `difference` estimate it under the hypothesis that they test.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int, Num


def cluster_sums(
    values: Num[np.ndarray, "n ..."], cluster: Int[np.ndarray, " n"]
) -> Float[np.ndarray, "clusters ..."]:
    """The sum of `values` in each cluster; sums of whole numbers are exact.

    cluster: the cluster of each question, 0, 1, …
    """
    if values.ndim == 1:
        return np.bincount(cluster, weights=values)
    return np.stack([np.bincount(cluster, weights=column) for column in values.T], axis=1)


def kish_design_effect(
    cluster_sizes: Int[np.ndarray, " clusters"], intra_cluster_correlation: float
) -> float:
    """The design effect for given cluster sizes: 1 + (Σ size² / n − 1)·ρ (Kish 1965).

    intra_cluster_correlation: ρ, the correlation of two questions of a cluster.
    """
    n = cluster_sizes.sum()
    return float(
        1.0 + ((cluster_sizes.astype(float) ** 2).sum() / n - 1.0) * intra_cluster_correlation
    )

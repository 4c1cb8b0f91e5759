"""Clusters of questions: sums, variances and the design effect.

Questions about one video are correlated. The design effect is the variance of a mean over clusters
divided by its variance over independent questions. So n / design effect is the number of
independent questions with the same information (Kish, Survey Sampling, 1965).

It is estimated from the data and set to at least 1. With few clusters, values below 1 are mostly
chance and would make intervals too short (coverage 93 % with 20 clusters, 96 % with the floor).
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


def clustered_variance(values: Num[np.ndarray, " n"], cluster: Int[np.ndarray, " n"]) -> float:
    """The variance of `values.mean()` if whole clusters are the independent units.

    Linearised ratio estimator with the correction m / (m − 1) for m clusters; 0 for one cluster,
    where the variance cannot be estimated.
    """
    size = np.bincount(cluster)
    size_present = size[size > 0]
    m = len(size_present)
    if m < 2:
        return 0.0
    residual = cluster_sums(values - values.mean(), cluster)
    return float(m / (m - 1) * (residual**2).sum() / len(values) ** 2)


def design_effect(values: Num[np.ndarray, " n"], cluster: Int[np.ndarray, " n"] | None) -> float:
    """The design effect of `values.mean()`; 1 if no two questions share a cluster.

    It cannot be estimated if all values are equal or all questions are in one cluster. Then it
    takes its largest value: the questions of a cluster count as one.
    """
    n = len(values)
    if cluster is None:
        return 1.0
    size = np.bincount(cluster)
    if size.max() == 1:
        return 1.0
    independent = float(values.var() / n)
    if independent == 0.0 or np.count_nonzero(size) == 1:
        return kish_design_effect(size, 1.0)
    return max(1.0, clustered_variance(values, cluster) / independent)


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

"""Clusters of questions: sums, the design effect, and the bootstrap of whole videos.

Questions about one video are correlated. The design effect is the variance of a mean over clusters
divided by its variance over independent questions. So n / design effect is the number of
independent questions with the same information (Kish, Survey Sampling, 1965).

`accuracy` and `difference` estimate it under the hypothesis that they test.

The cluster bootstrap resamples videos. Those of equal size and net gain are interchangeable, so a
resample is one multinomial draw over the distinct kinds of cluster. Percentiles are widened for few
clusters (Hesterberg 2015, "expanded percentile"). Comparisons report it beside the default interval
of `paired_difference`; without flipped answers its width is 0. Curves of means use it.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int, Num
from scipy.stats import norm, t

from mapflow.results.contract.errors import MapflowError
from mapflow.results.statistics.estimates import Interval, Real, check_fraction


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


def cluster_bootstrap(
    values: Num[np.ndarray, " n"],
    cluster: Int[np.ndarray, " n"],
    *,
    confidence: Real = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """The interval of the mean of `values` over questions.

    Its width is 0 if all values are equal. Raises MapflowError for fewer than two clusters.
    """
    check_fraction("confidence", confidence)
    size = np.bincount(cluster)
    present = size > 0
    m = int(present.sum())
    if m < 2:
        raise MapflowError(
            "a cluster bootstrap needs at least two clusters; give the questions' video ids"
        )
    # one sortable key for the pair (sum of values, size)
    kinds, count = np.unique(
        cluster_sums(values, cluster)[present] + 1j * size[present], return_counts=True
    )
    rng = np.random.default_rng(seed)
    rows = max(1, 4_000_000 // len(kinds))
    means = []
    for start in range(0, resamples, rows):
        drawn = rng.multinomial(m, count / m, size=min(rows, resamples - start))
        means.append((drawn @ np.real(kinds)) / (drawn @ np.imag(kinds)))
    tail = norm.cdf(np.sqrt(m / (m - 1)) * t.ppf((1 - confidence) / 2, m - 1))
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    method = f"cluster bootstrap, expanded percentile, {resamples} resamples, seed {seed}"
    return Interval(float(values.mean()), float(low), float(high), confidence, method)

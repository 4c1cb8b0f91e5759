"""Clusters of questions: sums, the design effect, and the bootstrap of whole videos.

Questions about one video are correlated. The design effect is the variance of a mean over clusters
divided by its variance over independent questions. So n / design effect is the number of
independent questions with the same information (Kish, Survey Sampling, 1965).

`accuracy` and `difference` estimate it under the hypothesis that they test.

The cluster bootstrap resamples videos. Those of equal size and net gain are interchangeable, so a
resample is one multinomial draw over the distinct kinds of cluster. Percentiles are widened for few
clusters (Hesterberg 2015, "expanded percentile"). Comparisons report it beside the default interval
of `paired_difference`; without flipped answers its width is 0. Curves of means use it.

`clustered_mean` is for values that are not flips, such as changes of a probability: the robust
variance of Bell & McCaffrey (2002), which allows for few and unequal videos, with their degrees of
freedom.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int, Num
from scipy.stats import norm, t

from mapflow.results.contract.errors import MapflowError
from mapflow.results.statistics.estimates import (
    NEGLIGIBLE,
    Interval,
    Real,
    Test,
    check_fraction,
)


def cluster_sums(
    values: Num[np.ndarray, "n ..."], cluster: Int[np.ndarray, " n"]
) -> Float[np.ndarray, "clusters ..."]:
    """The sum of `values` in each cluster; sums of whole numbers are exact.

    cluster: the cluster of each question, 0, 1, …
    """
    if values.ndim == 1:
        return np.bincount(cluster, weights=values)
    return np.stack([np.bincount(cluster, weights=column) for column in values.T], axis=1)


def clustered_standard_error(
    values: Num[np.ndarray, " n"], cluster: Int[np.ndarray, " n"] | None = None
) -> float | None:
    """The standard error of the mean (Miller 2024, arXiv 2411.00640, equation 4).

    It is reported beside intervals and decides nothing here: it is symmetric, and 0 where all
    values are equal. lmms-eval computes the same number. None for fewer than two values, and for
    several values of one video, for which the formula gives about 0.

    cluster: the video of each question; None if no two questions share one.
    """
    n = len(values)
    if n < 2 or (cluster is not None and np.count_nonzero(np.bincount(cluster)) < 2):
        return None
    apart = values - values.mean()
    squares = float(apart @ apart)
    between = squares if cluster is None else float((cluster_sums(apart, cluster) ** 2).sum())
    return float(np.sqrt(squares / (n * (n - 1)) + (between - squares) / n**2))


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


def clustered_mean(
    values: Float[np.ndarray, " n"],
    cluster: Int[np.ndarray, " n"] | None = None,
    confidence: Real = 0.95,
) -> tuple[Interval, Test] | None:
    """The mean of `values` over questions, and the test that it is 0.

    cluster: the video of each question; None if no two questions share one.

    Source: Bell & McCaffrey (2002), Survey Methodology 28:169-181, for a mean. The square of a
    video's sum of deviations is divided by 1 − its share of the questions, which makes the variance
    unbiased for independent questions. Degrees of freedom are Satterthwaite's under the same model;
    with videos of equal size, this is the t-test of the videos' means.

    None with one video, and where equal values of all videos leave nothing to estimate the error
    from; but if all values are 0, the interval is that point and p is 1.
    """
    check_fraction("confidence", confidence)
    if len(values) and not values.any():
        return Interval(0.0, 0.0, 0.0, confidence, "no value changed"), Test(0.0, 1.0, "no change")
    size = np.ones(len(values)) if cluster is None else np.bincount(cluster).astype(float)
    total = values if cluster is None else cluster_sums(values, cluster)
    total, size = total[size > 0], size[size > 0]
    if len(size) < 2:
        return None
    n, mean = float(size.sum()), float(values.mean())
    share = size / n
    error = float(np.sqrt((((total - size * mean) / n) ** 2 / (1 - share)).sum()))
    if error <= 1e-12 * abs(mean):
        return None
    # Satterthwaite: trace² / sum of squares of the matrix of the quadratic form
    own, crossed = share, share**2 / (1 - share)
    squares = float((own**2).sum() + crossed.sum() ** 2 - (crossed**2).sum())
    freedom = float(own.sum() ** 2 / squares)
    statistic = mean / error
    reach = float(t.isf((1 - confidence) / 2, freedom)) * error
    method = f"cluster-robust t, {freedom:.1f} degrees of freedom"
    p_value = max(2 * float(t.sf(abs(statistic), freedom)), NEGLIGIBLE)
    return (
        Interval(mean, mean - reach, mean + reach, confidence, method),
        Test(statistic, p_value, method),
    )

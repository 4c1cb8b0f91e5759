"""Several seeds of a random intervention as one condition.

Two things vary: which questions the benchmark happens to contain, and which edges a seed happens to
cut. So each question is scored by its mean over seeds. To the variance by video is added the
variance between seeds that questions do not explain, divided by the number of seeds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import t

from mapflow.results.contract.errors import MapflowError
from mapflow.results.statistics.clusters import clustered_variance
from mapflow.results.statistics.estimates import NEGLIGIBLE, Interval, Real, Test, check_fraction


@dataclass(frozen=True)
class SeedCondition:
    """The accuracies of the seeds and the condition's difference to the baseline.

    between_seeds: the standard deviation of the seeds' accuracies.
    seed_component: the part of it that the choice of questions does not explain; 0 if the seeds do
        not differ by more than that.
    """

    accuracies: Float[np.ndarray, " seeds"]
    between_seeds: float
    seed_component: float
    accuracy: Interval
    difference: Interval
    test: Test


def seed_condition(
    baseline: Bool[np.ndarray, " n"],
    seeds: Bool[np.ndarray, "seeds n"],
    cluster: Int[np.ndarray, " n"] | None = None,
    confidence: Real = 0.95,
) -> SeedCondition:
    """Compares the condition that `seeds` are draws of with `baseline`, on the same questions.

    cluster: the video of each question; None if no two questions share one.

    Raises MapflowError for fewer than two seeds or fewer than two clusters.
    """
    check_fraction("confidence", confidence)
    k, n = seeds.shape
    if k < 2:
        raise MapflowError(
            f"{k} seed has no variance between seeds; run at least two seeds of the condition"
        )
    groups = np.arange(n) if cluster is None else cluster
    m = int((np.bincount(groups) > 0).sum())
    if m < 2:
        raise MapflowError(
            "all questions are about one video; the comparison needs at least two clusters"
        )
    score = seeds.mean(axis=0)
    accuracies = seeds.mean(axis=1)
    between = float(seeds.sum(axis=1).var(ddof=1)) / n**2
    # the variance between seeds that the choice of questions explains
    explained = (
        float(np.mean([clustered_variance(run - score, groups) for run in seeds])) * k / (k - 1)
    )
    component = max(0.0, between - explained)

    def interval(values: Float[np.ndarray, " n"]) -> tuple[Interval, Test]:
        parts = np.array([clustered_variance(values, groups), component / k])
        variance = float(parts.sum())
        estimate = float(values.mean())
        method = f"mean of {k} seeds, variance by {m} clusters and between seeds"
        if variance == 0:
            p_value = 1.0 if estimate == 0 else max(2.0 ** (1 - m), NEGLIGIBLE)
            return Interval(estimate, estimate, estimate, confidence, method), Test(
                0.0, p_value, method
            )
        freedom = variance**2 / float((parts**2 / np.array([m - 1, k - 1])).sum())
        half = float(t.isf((1 - confidence) / 2, freedom)) * variance**0.5
        statistic = estimate / variance**0.5
        p_value = max(float(2 * t.sf(abs(statistic), freedom)), NEGLIGIBLE)
        return Interval(estimate, estimate - half, estimate + half, confidence, method), Test(
            statistic, p_value, method
        )

    difference, test = interval(score - baseline)
    return SeedCondition(
        accuracies, between**0.5, component**0.5, interval(score)[0], difference, test
    )

"""Several seeds of a random intervention as one condition.

Two things vary: which questions the benchmark happens to contain, and which edges a seed happens to
cut. The first is the variance of the mean over seeds, as in every comparison. The second is the
variance between the seeds' accuracies, divided by their number. It has as many degrees of freedom
as seeds minus one, so it needs its own t-quantile: adding up the variances first and choosing one
quantile for the sum (Satterthwaite) finds too many differences if the few seeds happen to agree.
With two seeds that quantile is 12.7, so such intervals are wide wherever the seeds differ.

What questions explain of the variance between seeds is not subtracted: the estimate would often be
negative, and intervals too short.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from mapflow.results.contract.errors import MapflowError
from mapflow.results.statistics.accuracy import mean_accuracy
from mapflow.results.statistics.difference import PairedDifference, mean_difference
from mapflow.results.statistics.estimates import Interval, Real, Test, check_fraction


@dataclass(frozen=True)
class SeedCondition:
    """The accuracies of the seeds and the condition's difference to the baseline.

    between_seeds: the standard deviation of the seeds' accuracies.
    counted: the sums behind `difference` and `test`, also for verdicts.
    """

    accuracies: Float[np.ndarray, " seeds"]
    between_seeds: float
    accuracy: Interval
    counted: PairedDifference
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
    if n < 2 or (cluster is not None and np.count_nonzero(np.bincount(cluster)) < 2):
        raise MapflowError(
            "all questions are about one video; the comparison needs at least two clusters"
        )
    accuracies = seeds.mean(axis=1)
    variance = float(accuracies.var(ddof=1)) / k
    gained, lost = (~baseline & seeds).mean(axis=0), (baseline & ~seeds).mean(axis=0)
    counted = mean_difference(gained, lost, cluster, variance, k - 1)
    return SeedCondition(
        accuracies,
        float(accuracies.std(ddof=1)),
        mean_accuracy(seeds.mean(axis=0), cluster, variance, k - 1, confidence),
        counted,
        counted.interval(confidence),
        counted.test(),
    )

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
from mapflow.results.statistics.difference import (
    DEFAULT_MARGIN,
    PairedDifference,
    mean_difference,
)
from mapflow.results.statistics.estimates import Interval, Real, Test, check_fraction
from mapflow.results.statistics.subtasks import MacroDifference, macro_of_sums, macro_weight


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
    counted = _counted(baseline, seeds, cluster)
    return SeedCondition(
        accuracies,
        float(accuracies.std(ddof=1)),
        seeds_accuracy(seeds, cluster, confidence),
        counted,
        counted.interval(confidence),
        counted.test(),
    )


def seeds_drop(
    baseline: Bool[np.ndarray, " n"],
    seeds: Bool[np.ndarray, "seeds n"],
    cluster: Int[np.ndarray, " n"] | None = None,
    confidence: Real = 0.95,
) -> Interval | None:
    """`accuracy_drop` of several seeds as one condition, between −1 and 0 as that of a single run.

    None if the baseline answers no question right.
    """
    if not baseline.any():
        return None
    own = None if cluster is None else cluster[baseline]
    kept = seeds_accuracy(seeds[:, baseline], own, confidence)
    return Interval(kept.estimate - 1, kept.low - 1, kept.high - 1, confidence, kept.method)


def seeds_macro_difference(
    baseline: Bool[np.ndarray, " n"],
    seeds: Bool[np.ndarray, "seeds n"],
    task: Int[np.ndarray, " n"],
    cluster: Int[np.ndarray, " n"] | None = None,
    *,
    margin: Real = DEFAULT_MARGIN,
    confidence: Real = 0.95,
) -> MacroDifference:
    """`macro_difference` of several seeds as one condition."""
    return macro_of_sums(_counted(baseline, seeds, cluster, macro_weight(task)), margin, confidence)


def _counted(
    baseline: Bool[np.ndarray, " n"],
    seeds: Bool[np.ndarray, "seeds n"],
    cluster: Int[np.ndarray, " n"] | None,
    weight: Float[np.ndarray, " n"] | None = None,
) -> PairedDifference:
    return seeds_difference(baseline[None], seeds, cluster, weight)


def seeds_difference(
    first: Bool[np.ndarray, "seeds n"],
    second: Bool[np.ndarray, "others n"],
    cluster: Int[np.ndarray, " n"] | None,
    weight: Float[np.ndarray, " n"] | None = None,
) -> PairedDifference:
    """The sums of `second` − `first`, each the mean of one run or of several seeds.

    With several seeds on both sides, their variances add up and the smaller number of degrees of
    freedom counts.

    weight: of each question, with mean 1; None for the plain mean.
    """
    before, after = first.mean(axis=0), second.mean(axis=0)
    variance, freedom = 0.0, []
    for side in (first, second):
        values = side if weight is None else side * weight
        if len(side) > 1:
            variance += float(values.mean(axis=1).var(ddof=1)) / len(side)
            freedom.append(len(side) - 1)
    gained, lost = after * (1 - before), before * (1 - after)
    return mean_difference(gained, lost, cluster, variance, min(freedom, default=0), weight)


def seeds_accuracy(
    seeds: Bool[np.ndarray, "seeds n"],
    cluster: Int[np.ndarray, " n"] | None = None,
    confidence: Real = 0.95,
) -> Interval:
    """The mean accuracy of two or more seeds; the variance between them widens its interval."""
    variance = float(seeds.mean(axis=1).var(ddof=1)) / len(seeds)
    return mean_accuracy(seeds.mean(axis=0), cluster, variance, len(seeds) - 1, confidence)

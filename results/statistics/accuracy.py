"""Accuracy of one run: its interval, and a test against guessing.

Wilson's score interval (1927) stays inside [0, 1] and is valid at 0 and 100 %. With clusters, its
variance is multiplied by the design effect, so a video with ten questions does not count as ten
videos. Like Wilson's variance, the design effect is taken under the hypothesis: squared cluster
totals of (answer − accuracy) over squared answers − accuracy, at least 1. That at the estimate
(Korn & Graubard 1998) is too small with few or unequal videos: of 15 to 44 videos, such intervals
covered 82-92 % instead of 95 % (README.md).

Questions differ in their number of options. So the number of right guesses has a Poisson-binomial
distribution, which is computed exactly by convolving one binomial per number of options. If right
letters are placed at random, it holds for every strategy that ignores the video, also for clustered
questions. An accuracy significantly *below* chance usually means that answers lost their format:
check the rate of valid answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import brentq
from scipy.stats import binom, norm, t
from statsmodels.stats.proportion import proportion_confint

from mapflow.results.contract.errors import MapflowError
from mapflow.results.statistics.clusters import cluster_sums
from mapflow.results.statistics.estimates import NEGLIGIBLE, Interval, Real, check_fraction

ONE_VIDEO = "none, as all questions are about one video"
"""The method of an interval that says nothing: other videos may have any accuracy."""


def wilson(successes: Real, n: Real, confidence: Real = 0.95) -> Interval:
    """Wilson's score interval for `successes` out of `n`, which may be fractional effective counts.

    Raises MapflowError for n = 0.
    """
    check_fraction("confidence", confidence)
    if n <= 0:
        raise MapflowError("the accuracy of a run without questions is undefined; check the run")
    limits: Any = proportion_confint(successes, n, alpha=1.0 - confidence, method="wilson")
    low, high = max(0.0, float(limits[0])), min(1.0, float(limits[1]))
    return Interval(successes / n, low, high, confidence, "Wilson")


def accuracy(
    correct: Bool[np.ndarray, " n"],
    cluster: Int[np.ndarray, " n"] | None = None,
    confidence: Real = 0.95,
) -> Interval:
    """The share of correct answers with its interval.

    cluster: the video of each question; None if no two questions share one. The interval of several
        questions about one video is 0 to 1, as it tells nothing about other videos.

    Raises MapflowError without questions.
    """
    return mean_accuracy(correct.astype(float), cluster, 0.0, 1, confidence)


def mean_accuracy(
    correct: Float[np.ndarray, " n"],
    cluster: Int[np.ndarray, " n"] | None,
    seed_variance: float,
    seed_freedom: int,
    confidence: Real = 0.95,
) -> Interval:
    """The accuracy of a mean over seeds; `correct` is the share of seeds that answer rightly.

    seed_variance, seed_freedom: as in `difference.PairedDifference`; 0 and 1 for a single run.
    """
    check_fraction("confidence", confidence)
    n = len(correct)
    if n == 0:
        raise MapflowError("the accuracy of a run without questions is undefined; check the run")
    right = float(correct.sum())
    if seed_variance == 0 and (cluster is None or np.bincount(cluster).max() == 1):
        return wilson(right, n, confidence)
    groups = np.arange(n) if cluster is None else cluster
    size = np.bincount(groups).astype(float)
    if np.count_nonzero(size) == 1:
        return Interval(right / n, 0.0, 1.0, confidence, ONE_VIDEO)
    total = cluster_sums(correct, groups)
    squares, crossed, sizes = float(total @ total), float(total @ size), float(size @ size)
    own = float(correct @ correct)
    estimate, z = right / n, float(norm.isf((1 - confidence) / 2))
    between = float(t.isf((1 - confidence) / 2, seed_freedom)) ** 2 * seed_variance

    def effect(share: float) -> float:
        apart = right * (1 - share) ** 2 + (n - right) * share**2
        if apart <= 1e-14 * n:  # nothing varies: the questions of a video count as one
            return sizes / n
        by_cluster = squares - 2 * share * crossed + share**2 * sizes
        return max(by_cluster, own - 2 * share * right + share**2 * n) / apart

    def outside(share: float) -> float:
        variance = share * (1 - share) / n * effect(share)
        return (share - estimate) ** 2 - z**2 * variance - between

    def limit(bound: float) -> float:
        before = estimate
        for step in range(1, 65):
            here = estimate + (bound - estimate) * (step / 64) ** 2
            if outside(here) > 0:
                return float(brentq(outside, before, here, xtol=1e-13))
            before = here
        return bound

    method = f"Wilson, design effect {effect(estimate):.2f}"
    if seed_variance:
        method += f", {seed_freedom + 1} seeds"
    return Interval(estimate, limit(0.0), limit(1.0), confidence, method)


def accuracy_drop(
    baseline: Bool[np.ndarray, " n"],
    treatment: Bool[np.ndarray, " n"],
    cluster: Int[np.ndarray, " n"] | None = None,
    confidence: Real = 0.95,
) -> Interval | None:
    """Treatment − baseline accuracy among the questions that the baseline answers right.

    The baseline's share is 1 there, so the interval is that of the share which stays right, minus 1
    (paper, Table 2). None if the baseline answers no question right.

    cluster: the video of each question; None if no two questions share one.
    """
    if not baseline.any():
        return None
    own = None if cluster is None else cluster[baseline]
    kept = accuracy(treatment[baseline], own, confidence)
    return Interval(kept.estimate - 1, kept.low - 1, kept.high - 1, confidence, kept.method)


@dataclass(frozen=True)
class ChanceTest:
    """A comparison of an accuracy with guessing; all p-values are exact.

    chance: expected accuracy of guessing.
    p_two_sided: twice the smaller one-sided p-value, at most 1.
    """

    accuracy: float
    chance: float
    p_above: float
    p_below: float
    p_two_sided: float
    method: str


def chance_level_test(
    correct: Bool[np.ndarray, " n"],
    options: Int[np.ndarray, " n"],
    n_right: Int[np.ndarray, " n"] | None = None,
) -> ChanceTest:
    """Tests the number of right answers against guessing.

    options: the number of options of each question.
    n_right: how many of them are right (default: one), if the right one is listed more than once.

    Raises MapflowError for questions with fewer than two options, as open questions have no
    chance level.
    """
    if len(correct) == 0:
        raise MapflowError("the run has no questions to compare with chance; check the run")
    if len(options) != len(correct) or options.min() < 2:
        raise MapflowError(
            "the chance-level test needs at least 2 options for every question;"
            " leave out open questions"
        )
    right = int(correct.sum())
    guessed = (1 if n_right is None else n_right) / options
    kinds, count = np.unique(guessed, return_counts=True)
    low, probability = _guessed_right(kinds, count)
    value = low + np.arange(len(probability))
    above = _tail(probability[value >= right])
    below = _tail(probability[value <= right])
    return ChanceTest(
        float(correct.mean()),
        float(guessed.mean()),
        above,
        below,
        min(1.0, 2 * min(above, below)),
        "exact Poisson-binomial",
    )


def _tail(probability: np.ndarray) -> float:
    return float(min(1.0, max(probability.sum(), NEGLIGIBLE)))


def _guessed_right(
    kinds: Float[np.ndarray, " kinds"], count: Int[np.ndarray, " kinds"]
) -> tuple[int, Float[np.ndarray, " values"]]:
    """The distribution of the number of right guesses: its lowest value and the probabilities.

    kinds: the probabilities of a right guess that occur; count: questions with each.

    Tails below 1e-300 are dropped.
    """
    low, probability = 0, np.ones(1)
    for one, times in zip(kinds.tolist(), count.tolist(), strict=True):
        share = binom.pmf(np.arange(times + 1), times, one)
        kept = np.flatnonzero(share > NEGLIGIBLE)
        low += int(kept[0])
        probability = np.convolve(probability, share[kept[0] : kept[-1] + 1])
    return low, probability

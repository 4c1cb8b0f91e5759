"""Accuracy of one run with Wilson's score interval; clustered questions count as fewer.

Wilson (1927) keeps the interval inside [0, 1] and meaningful at 0 and 100 %. With clusters the counts are divided by
the design effect first, as survey statistics does (Korn & Graubard 1998), so a video with ten questions does not
count as ten videos.

Is a run better, or worse, than guessing?

Questions differ in their number of options, so guessing is a sum of unequal coins: the Poisson-binomial
distribution, computed exactly by convolving one binomial for each number of options. Where the right letters are
placed at random it holds for any strategy that ignores the video, clustered or not. Significantly *below* chance
usually means that answers lost their format, not that reasoning got worse: look at the valid-answer rate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import binom
from statsmodels.stats.proportion import proportion_confint

from mapflow.results.contract.errors import MapflowError
from mapflow.results.statistics.clusters import design_effect
from mapflow.results.statistics.estimates import NEGLIGIBLE, Interval, Real, check_fraction


def wilson(successes: Real, n: Real, confidence: Real = 0.95) -> Interval:
    """Wilson's score interval for `successes` out of `n`; both may be fractional effective counts."""
    check_fraction("confidence", confidence)
    if n <= 0:
        raise MapflowError("an accuracy of no questions is undefined; check that the run holds any")
    limits: Any = proportion_confint(successes, n, alpha=1.0 - confidence, method="wilson")
    low, high = max(0.0, float(limits[0])), min(1.0, float(limits[1]))
    return Interval(successes / n, low, high, confidence, "Wilson")


def accuracy(
    correct: Bool[np.ndarray, " n"],
    cluster: Int[np.ndarray, " n"] | None = None,
    confidence: Real = 0.95,
) -> Interval:
    """Share of correct answers with its interval, by video where `cluster` says which questions share one."""
    if len(correct) == 0:
        raise MapflowError("an accuracy of no questions is undefined; check that the run holds any")
    effect = design_effect(correct.astype(float), cluster)
    interval = wilson(correct.sum() / effect, len(correct) / effect, confidence)
    method = "Wilson" if effect == 1.0 else f"Wilson, design effect {effect:.2f}"
    return Interval(float(correct.mean()), interval.low, interval.high, confidence, method)


@dataclass(frozen=True)
class ChanceTest:
    """`chance` is the expected accuracy of guessing; p-values are exact, `p_two_sided` twice the smaller one."""

    accuracy: float
    chance: float
    p_above: float
    p_below: float
    p_two_sided: float
    method: str


def chance_level_test(
    correct: Bool[np.ndarray, " n"], options: Int[np.ndarray, " n"]
) -> ChanceTest:
    """Compare the number of right answers with guessing among `options` (their number, a question).

    Raises MapflowError for questions with fewer than two options: open questions have no chance level.
    """
    if len(correct) == 0:
        raise MapflowError("no questions to compare with chance; check that the run holds any")
    if len(options) != len(correct) or options.min() < 2:
        raise MapflowError(
            "chance needs a number of options ≥ 2 for every question; leave open questions out of this test"
        )
    right = int(correct.sum())
    kinds, count = np.unique(options, return_counts=True)
    low, probability = _guessed_right(kinds, count)
    value = low + np.arange(len(probability))
    above = _tail(probability[value >= right])
    below = _tail(probability[value <= right])
    return ChanceTest(
        float(correct.mean()),
        float((1.0 / options).mean()),
        above,
        below,
        min(1.0, 2 * min(above, below)),
        "exact Poisson-binomial",
    )


def _tail(probability: np.ndarray) -> float:
    return float(min(1.0, max(probability.sum(), NEGLIGIBLE)))


def _guessed_right(
    kinds: Int[np.ndarray, " kinds"], count: Int[np.ndarray, " kinds"]
) -> tuple[int, Float[np.ndarray, " values"]]:
    """Distribution of the number right by guessing, from its lowest value on; tails below 1e-300 dropped."""
    low, probability = 0, np.ones(1)
    for options, times in zip(kinds.tolist(), count.tolist(), strict=True):
        share = binom.pmf(np.arange(times + 1), times, 1.0 / options)
        kept = np.flatnonzero(share > NEGLIGIBLE)
        low += int(kept[0])
        probability = np.convolve(probability, share[kept[0] : kept[-1] + 1])
    return low, probability

"""Accuracy of one run with Wilson's score interval; clustered questions count as fewer.

Wilson (1927) keeps the interval inside [0, 1] and meaningful at 0 and 100 %. With clusters the counts are divided by
the design effect first, as survey statistics does (Korn & Graubard 1998), so a video with ten questions does not
count as ten videos.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Int
from statsmodels.stats.proportion import proportion_confint

from mapflow.results.contract.errors import MapflowError
from mapflow.results.statistics.design_effect import design_effect
from mapflow.results.statistics.findings import Interval, Real, check_fraction


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

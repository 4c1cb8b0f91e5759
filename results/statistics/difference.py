"""Treatment − baseline over the same questions: interval, non-inferiority and equivalence.

The interval is Tango's (1998), which inverts a score test. The test uses the variance under the
hypothesis, so it is valid with few discordant questions, where Wald intervals fail. Clustered
counts are divided by the design effect first. This was chosen over the cluster bootstrap by
measurement (README.md): with 50 videos it covers 94-96 %, the percentile bootstrap 92-94 %, the
studentised one 89-94 %. It also needs no random numbers and no discordant questions.

A p-value above 0.05 is not evidence of equality. The verdict compares the interval with a margin
declared in advance: all above −margin is *non-inferior*, all below is *inferior*, else
*inconclusive*. With the two-sided 95 % interval each claim is wrong in at most 2.5 % of cases at
the margin (as in ICH E9). *Equivalence* is claimed by two one-sided tests (Schuirmann 1987).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int
from scipy.stats import norm

from mapflow.results.contract.errors import MapflowError
from mapflow.results.statistics.clusters import design_effect
from mapflow.results.statistics.estimates import Interval, Real, check_fraction, root


def tango_score(gained: Real, lost: Real, n: Real, difference: Real) -> float:
    """The standard normal score of the hypothesis that treatment − baseline is `difference`.

    gained, lost: questions right under the treatment, or the baseline, only; may be fractional
        effective counts.
    n: all questions.
    difference: from −1 to 1. At 0 the score is McNemar's (gained − lost) / √(gained + lost).

    Source: Tango (1998), Statistics in Medicine 17:891-908, equations 24-26.
    """
    if difference < 0:
        return -tango_score(lost, gained, n, -difference)
    distance = gained - lost - n * difference
    if distance == 0:
        return 0.0
    # The restricted maximum-likelihood probability of a lost pair is the positive root of
    # 2n·q² + b·q + c = 0.
    b = (2 * n - gained + lost) * difference - gained - lost
    c = -lost * difference * (1 - difference)
    radical = math.sqrt(b * b - 8 * n * c)
    lost_share = -2 * c / (b + radical) if b > 0 else (radical - b) / (4 * n)
    variance = n * (2 * lost_share + difference * (1 - difference))
    return math.copysign(math.inf, distance) if variance <= 0 else distance / math.sqrt(variance)


def tango_interval(gained: Real, lost: Real, n: Real, confidence: Real = 0.95) -> Interval:
    """All differences that the score test does not reject. Arguments as in `tango_score`.

    Raises MapflowError for counts that are not a paired table.
    """
    check_fraction("confidence", confidence)
    if not (gained >= 0 and lost >= 0 and n > 0 and gained + lost <= n * (1 + 1e-12)):
        raise MapflowError(
            f"{gained:g} gained and {lost:g} lost of {n:g} questions are not a paired table"
        )
    z = float(norm.isf((1 - confidence) / 2))
    estimate = (gained - lost) / n

    def limit(bound: Real, target: Real) -> float:
        if abs(estimate - bound) < 1e-15:
            return bound
        edge = bound * (1 - 1e-15)
        return root(lambda d: tango_score(gained, lost, n, d) - target, edge, estimate)

    return Interval(estimate, limit(-1.0, z), limit(1.0, -z), confidence, "Tango score")


@dataclass(frozen=True)
class PairedDifference:
    """Counts of discordant questions, and the design effect that they are divided by."""

    gained: int
    lost: int
    n: int
    design_effect: float

    @property
    def estimate(self) -> float:
        return (self.gained - self.lost) / self.n

    def score(self, difference: Real) -> float:
        """The standard normal score of the hypothesis that the difference is `difference`."""
        effect = self.design_effect
        return tango_score(self.gained / effect, self.lost / effect, self.n / effect, difference)

    def interval(self, confidence: Real = 0.95) -> Interval:
        """The differences that the score test does not reject."""
        effect = self.design_effect
        found = tango_interval(
            self.gained / effect, self.lost / effect, self.n / effect, confidence
        )
        method = (
            "Tango score"
            if effect == 1.0
            else f"Tango score by cluster, design effect {effect:.2f}"
        )
        return Interval(self.estimate, found.low, found.high, confidence, method)


def paired_difference(
    difference: Int[np.ndarray, " n"], cluster: Int[np.ndarray, " n"] | None = None
) -> PairedDifference:
    """Counts the discordant questions and estimates their design effect.

    difference: treatment − baseline of each question: −1, 0 or 1.
    cluster: the video of each question; None if no two questions share one.

    Raises MapflowError without questions.
    """
    if len(difference) == 0:
        raise MapflowError("the difference of runs without questions is undefined; check the runs")
    gained, lost = int((difference > 0).sum()), int((difference < 0).sum())
    return PairedDifference(gained, lost, len(difference), design_effect(difference, cluster))


Verdict = Literal["non-inferior", "inferior", "inconclusive"]
DEFAULT_MARGIN = 0.02


@dataclass(frozen=True)
class NonInferiority:
    """The verdict and its one-sided p-value.

    p_value: of the hypothesis "worse by the margin or more"; non-inferior if it is below
        (1 − confidence) / 2.
    """

    verdict: Verdict
    margin: float
    confidence: float
    p_value: float


@dataclass(frozen=True)
class Equivalence:
    """The result of two one-sided tests; `p_value` is the larger of the two."""

    equivalent: bool
    margin: float
    alpha: float
    p_value: float


def non_inferiority(
    difference: PairedDifference, margin: Real = DEFAULT_MARGIN, confidence: Real = 0.95
) -> NonInferiority:
    """The verdict that the interval of `difference` allows.

    margin: the loss that still counts as non-inferior, as a fraction.
    """
    check_fraction("margin", margin)
    interval = difference.interval(confidence)
    verdict: Verdict = "inconclusive"
    if interval.low > -margin:
        verdict = "non-inferior"
    elif interval.high < -margin:
        verdict = "inferior"
    return NonInferiority(verdict, margin, confidence, float(norm.sf(difference.score(-margin))))


def equivalence(
    difference: PairedDifference, margin: Real = DEFAULT_MARGIN, alpha: Real = 0.05
) -> Equivalence:
    """Two one-sided tests of `difference` against −margin and +margin."""
    check_fraction("margin", margin)
    check_fraction("alpha", alpha)
    not_worse = float(norm.sf(difference.score(-margin)))
    not_better = float(norm.cdf(difference.score(margin)))
    p_value = max(not_worse, not_better)
    return Equivalence(p_value < alpha, margin, alpha, p_value)

"""Is the treatment at most a margin worse? Three verdicts, declared before looking.

A p-value above 0.05 is no evidence of equality. With a margin (two points by default) the interval decides: wholly
above −margin is *non-inferior*, wholly below is *inferior*, anything else *inconclusive*. The two-sided 95 % interval
makes each claim wrong in at most 2.5 % of cases at the margin (as in ICH E9). TOST, the two-sided companion, claims
*equivalence* where the difference is provably within ± margin (Schuirmann 1987; two one-sided tests at 5 %, so it
agrees with the 90 % interval).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from scipy.stats import norm

from mapflow.results.statistics.findings import Real, check_fraction
from mapflow.results.statistics.paired_difference import PairedDifference

Verdict = Literal["non-inferior", "inferior", "inconclusive"]
DEFAULT_MARGIN = 0.02


@dataclass(frozen=True)
class NonInferiority:
    """`p_value` is one-sided, against "worse by the margin or more"; below (1 − confidence)/2 means non-inferior."""

    verdict: Verdict
    margin: float
    confidence: float
    p_value: float


@dataclass(frozen=True)
class Equivalence:
    """`p_value` is the larger of the two one-sided ones."""

    equivalent: bool
    margin: float
    alpha: float
    p_value: float


def non_inferiority(
    difference: PairedDifference, margin: Real = DEFAULT_MARGIN, confidence: Real = 0.95
) -> NonInferiority:
    """The verdict that the interval of `difference` at `confidence` allows."""
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

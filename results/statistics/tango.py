"""Tango's score test and interval for the difference of two paired proportions.

Of n questions, `gained` are right only under the treatment and `lost` only under the baseline. The score statistic
for a hypothesised difference δ uses the variance *under that hypothesis*, so it stays honest with few discordant
pairs, where Wald intervals fail. At δ = 0 it is McNemar's (gained − lost)/√(gained + lost).

Source: Tango (1998), Statistics in Medicine 17:891-908, equations 24-26. Counts may be fractional: divided by a
design effect they are effective counts.
"""

from __future__ import annotations

import math

from scipy.stats import norm

from mapflow.results.contract.errors import MapflowError
from mapflow.results.statistics.findings import Interval, Real, check_fraction, root


def tango_score(gained: Real, lost: Real, n: Real, difference: Real) -> float:
    """Standard normal score for the hypothesis that treatment − baseline is `difference` (in −1 … 1)."""
    if difference < 0:
        return -tango_score(lost, gained, n, -difference)
    distance = gained - lost - n * difference
    if distance == 0:
        return 0.0
    # The restricted maximum-likelihood probability of a lost pair: the positive root of 2n·q² + b·q + c = 0.
    b = (2 * n - gained + lost) * difference - gained - lost
    c = -lost * difference * (1 - difference)
    root = math.sqrt(b * b - 8 * n * c)
    lost_share = -2 * c / (b + root) if b > 0 else (root - b) / (4 * n)
    variance = n * (2 * lost_share + difference * (1 - difference))
    return math.copysign(math.inf, distance) if variance <= 0 else distance / math.sqrt(variance)


def tango_interval(gained: Real, lost: Real, n: Real, confidence: Real = 0.95) -> Interval:
    """All differences that the score test does not reject; needs no discordant pair."""
    check_fraction("confidence", confidence)
    if not (gained >= 0 and lost >= 0 and n > 0 and gained + lost <= n * (1 + 1e-12)):
        raise MapflowError(
            f"{gained:g} gained and {lost:g} lost of {n:g} questions is no paired table"
        )
    z = float(norm.isf((1 - confidence) / 2))
    estimate = (gained - lost) / n

    def limit(bound: Real, target: Real) -> float:
        if abs(estimate - bound) < 1e-15:
            return bound
        edge = bound * (1 - 1e-15)
        return root(lambda d: tango_score(gained, lost, n, d) - target, edge, estimate)

    return Interval(estimate, limit(-1.0, z), limit(1.0, -z), confidence, "Tango score")

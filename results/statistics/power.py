"""Power, and the smallest effects that a benchmark can detect, for paired comparisons.

They follow from the number of questions, the share that flips (discordance), the true difference,
and the design effect of shared videos, which divides the number of questions. Normal approximation
of McNemar's test: Miettinen (1968); Connor (1987), Biometrics 43:207-211. For non-inferiority, the
bound has the variance that the score test fits under the hypothesis (Tango 1998, in `mid_p`), as in
Nam (1997), Biometrics 53:1422-1430.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import binom, norm

from mapflow.results.contract.errors import MapflowError
from mapflow.results.statistics.difference import DEFAULT_MARGIN, PairedDifference
from mapflow.results.statistics.estimates import NEGLIGIBLE, Real, check_fraction, root
from mapflow.results.statistics.mid_p import restricted_loss

FEW_FLIPS = 15
"""Expected flips below which the normal approximation finds differences that no test can find."""


def power_of_difference(
    n: Real, discordance: Real, difference: Real, *, design_effect: Real = 1.0, alpha: Real = 0.05
) -> float:
    """The probability that the two-sided McNemar test at `alpha` finds a true `difference`.

    With few expected flips it is that of the mid-p test, summed over all numbers of flips.
    """
    _check_design(n, discordance, difference, design_effect, alpha)
    if n * discordance / design_effect < FEW_FLIPS:
        return _power_of_few_flips(round(n / design_effect), discordance, difference, alpha)
    spread = math.sqrt(max(discordance - difference**2, NEGLIGIBLE))
    signal = abs(difference) * math.sqrt(n / design_effect)
    bound = norm.isf(alpha / 2) * math.sqrt(discordance)
    return float(norm.cdf((signal - bound) / spread) + norm.cdf((-signal - bound) / spread))


def _power_of_few_flips(n: int, discordance: Real, difference: Real, alpha: Real) -> float:
    most = int(binom.isf(1e-9, n, discordance))
    gained = min(max((1 + difference / discordance) / 2, 0.0), 1.0)
    power = 0.0
    for flips in range(1, most + 1):
        k = np.arange(flips + 1)
        below = binom.cdf(k, flips, 0.5) - binom.pmf(k, flips, 0.5) / 2
        found = 2 * np.minimum(below, 1 - below) < alpha
        power += binom.pmf(flips, n, discordance) * binom.pmf(k[found], flips, gained).sum()
    return float(power)


def questions_needed(
    discordance: Real,
    difference: Real,
    *,
    power: Real = 0.8,
    design_effect: Real = 1.0,
    alpha: Real = 0.05,
) -> float:
    """The number of questions for `power` to find `difference` (Connor 1987), not rounded."""
    _check_design(1, discordance, difference, design_effect, alpha)
    check_fraction("power", power)
    if difference == 0:
        raise MapflowError(
            "no number of questions finds a difference of 0; give the difference that matters"
        )
    spread = math.sqrt(discordance - difference**2)
    reach = (
        float(norm.isf(alpha / 2)) * math.sqrt(discordance) + float(norm.isf(1 - power)) * spread
    )
    return design_effect * (reach / difference) ** 2


def minimal_detectable_effect(
    n: Real, discordance: Real, *, power: Real = 0.8, design_effect: Real = 1.0, alpha: Real = 0.05
) -> float:
    """The smallest difference, as a fraction, that is found with probability `power`.

    Raises MapflowError if even a difference as large as the discordance would be missed.
    """
    check_fraction("power", power)

    def shortfall(difference: Real) -> float:
        found = power_of_difference(
            n, discordance, difference, design_effect=design_effect, alpha=alpha
        )
        return found - power

    if shortfall(discordance) < 0:
        raise MapflowError(
            f"{n:g} questions with discordance {discordance:g} and design effect"
            f" {design_effect:g} do not reach power {power:g}; use more questions"
        )
    return root(shortfall, 0.0, discordance)


def detectable_difference(
    n: Real, discordance: Real, *, power: Real = 0.8, design_effect: Real = 1.0, alpha: Real = 0.05
) -> float | None:
    """`minimal_detectable_effect` of a finished run: larger differences flip more questions.

    None if not even a difference of 1 would be found.
    """
    check_fraction("power", power)

    def shortfall(difference: Real) -> float:
        flips = max(discordance, difference)
        found = power_of_difference(n, flips, difference, design_effect=design_effect, alpha=alpha)
        return found - power

    return root(shortfall, 1e-9, 1.0) if shortfall(1.0) > 0 else None


def power_of_non_inferiority(
    n: Real,
    discordance: Real,
    difference: Real = 0.0,
    margin: Real = DEFAULT_MARGIN,
    *,
    design_effect: Real = 1.0,
    confidence: Real = 0.95,
) -> float:
    """The probability of the verdict non-inferior if the true difference is `difference`."""
    check_fraction("margin", margin)
    _check_design(n, discordance, difference, design_effect, 1 - confidence)
    bound, spread = _non_inferiority_spreads(discordance, difference, margin)
    signal = (difference + margin) * math.sqrt(n / design_effect)
    return float(norm.cdf((signal - norm.isf((1 - confidence) / 2) * bound) / spread))


def questions_for_non_inferiority(
    discordance: Real,
    difference: Real = 0.0,
    margin: Real = DEFAULT_MARGIN,
    *,
    power: Real = 0.8,
    design_effect: Real = 1.0,
    confidence: Real = 0.95,
) -> float:
    """The number of questions for `power` to show non-inferiority, not rounded.

    Raises MapflowError if the true difference is not above −margin.
    """
    check_fraction("margin", margin)
    check_fraction("power", power)
    _check_design(1, discordance, difference, design_effect, 1 - confidence)
    if difference + margin <= 0:
        raise MapflowError(
            f"no number of questions shows that a difference of {100 * difference:g} points is"
            f" above a margin of {100 * margin:g}; give a smaller loss or a larger margin"
        )
    bound, spread = _non_inferiority_spreads(discordance, difference, margin)
    reach = float(norm.isf((1 - confidence) / 2)) * bound + float(norm.isf(1 - power)) * spread
    return design_effect * (reach / (difference + margin)) ** 2


def _non_inferiority_spreads(
    discordance: Real, difference: Real, margin: Real
) -> tuple[float, float]:
    """Standard deviations per question: as fitted at −margin, and the true one."""
    gained, lost = (discordance + difference) / 2, (discordance - difference) / 2
    fitted = min(max(restricted_loss(lost, gained, 1.0, margin), 0.0), 1 - margin)
    true = math.sqrt(max(discordance - difference**2, NEGLIGIBLE))
    return math.sqrt(2 * fitted + margin - margin**2), true


def largest_non_inferior_discordance(
    n: int,
    difference: Real,
    margin: Real = DEFAULT_MARGIN,
    *,
    design_effect: Real = 1.0,
    confidence: Real = 0.95,
) -> float | None:
    """The largest share of flipped questions for which `difference` is non-inferior.

    For published accuracies, where flips are unknown. Uses the interval of fractional counts.

    None if no discordance is small enough: the difference exceeds the margin, or its own flips
    (|difference| is the least possible discordance) already widen the interval too much. 1 if any
    discordance is.
    """
    check_fraction("margin", margin)
    effective = n / design_effect

    def clearance(discordance: Real) -> float:
        gained, lost = (discordance + difference) / 2, (discordance - difference) / 2
        counts = (max(0.0, gained) * effective, max(0.0, lost) * effective, effective)
        return PairedDifference.of_counts(*counts).interval(confidence).low + margin

    if clearance(abs(difference)) <= 0:
        return None
    if clearance(1.0) > 0:
        return 1.0
    return root(clearance, abs(difference), 1.0)


def _check_design(
    n: Real, discordance: Real, difference: Real, design_effect: Real, alpha: Real
) -> None:
    check_fraction("alpha", alpha)
    if n < 1 or design_effect <= 0:
        raise MapflowError(
            f"{n:g} questions with design effect {design_effect:g}: needs at least 1 question"
            " and a design effect above 0"
        )
    if not 0 < discordance <= 1 or abs(difference) > discordance:
        raise MapflowError(
            f"discordance {discordance:g} must be between 0 and 1 and at least the difference"
            f" {difference:g}"
        )

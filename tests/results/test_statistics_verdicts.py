"""Non-inferiority, equivalence and power: what a benchmark can claim, and could have shown."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, norm

from mapflow.results.contract.errors import MapflowError
from mapflow.results.statistics import (
    PairedDifference,
    equivalence,
    largest_non_inferior_discordance,
    minimal_detectable_effect,
    non_inferiority,
    power_of_difference,
    power_of_non_inferiority,
    questions_needed,
)


@pytest.mark.parametrize(
    ("gained", "lost", "verdict"),
    [
        (119, 127, "non-inferior"),
        (100, 250, "inferior"),
        (110, 140, "inconclusive"),
        (0, 0, "non-inferior"),
    ],
)
def test_the_interval_decides(gained, lost, verdict):
    counted = PairedDifference.of_counts(gained, lost, 2525)
    found = non_inferiority(counted)
    assert found.verdict == verdict
    interval = counted.interval()
    assert (interval.low > -0.02) == (verdict == "non-inferior")
    assert (interval.high < -0.02) == (verdict == "inferior")


@given(st.integers(0, 80), st.integers(0, 80), st.floats(0.005, 0.1), st.floats(1, 4))
def test_p_value_and_verdict_agree(gained, lost, margin, effect):
    counted = PairedDifference.of_counts(gained, lost, 1000, effect)
    found = non_inferiority(counted, margin)
    assert (found.p_value < 0.025) == (found.verdict == "non-inferior")
    both = equivalence(counted, margin)
    interval = counted.interval(0.90)
    assert both.equivalent == (-margin < interval.low and interval.high < margin)


def test_the_papers_claims_at_ten_per_cent_discordance():
    """−0.3 points on TVBench is then non-inferior, −1.0 on TOMATO inconclusive."""

    def verdict(n: int, difference: float) -> str:
        gained, lost = round(n * (0.1 + difference) / 2), round(n * (0.1 - difference) / 2)
        return non_inferiority(PairedDifference.of_counts(gained, lost, n)).verdict

    assert verdict(2525, -0.003) == "non-inferior"
    assert verdict(1484, -0.010) == "inconclusive"


def test_a_margin_in_points_is_refused():
    with pytest.raises(MapflowError, match=r"margin 2 .* 0\.02"):
        non_inferiority(PairedDifference.of_counts(1, 2, 100), margin=2)


def test_sample_size_reproduces_connor_1987():
    """Connor (1987), Biometrics 43:207: discordant 0.45 and 0.05, 80 % power, 23 pairs.

    The R package MESS gives 22.0 before rounding.
    """
    assert math.ceil(questions_needed(0.5, 0.4)) == 23
    assert questions_needed(0.5, 0.4) == pytest.approx(22.0, abs=0.05)


def exact_power(n: int, discordance: float, difference: float) -> float:
    """Power of the McNemar z-test by adding up all tables."""
    share = (discordance + difference) / 2 / discordance
    total, z = 0.0, norm.isf(0.025)
    for flips in range(1, n + 1):
        gained = np.arange(flips + 1)
        rejected = np.abs(2 * gained - flips) > z * math.sqrt(flips)
        total += binom.pmf(flips, n, discordance) * binom.pmf(gained, flips, share)[rejected].sum()
    return total


@pytest.mark.parametrize(
    ("n", "discordance", "difference"), [(400, 0.2, 0.06), (1000, 0.1, 0.03), (300, 0.3, 0.05)]
)
def test_power_agrees_with_all_tables(n, discordance, difference):
    found = power_of_difference(n, discordance, difference)
    assert found == pytest.approx(exact_power(n, discordance, difference), abs=0.02)


@given(st.floats(0.02, 0.5), st.floats(1, 3), st.sampled_from([0.8, 0.9]))
def test_minimal_detectable_effect_is_detected_with_its_power(discordance, effect, power):
    found = minimal_detectable_effect(2525, discordance, power=power, design_effect=effect)
    assert power_of_difference(2525, discordance, found, design_effect=effect) == pytest.approx(
        power, abs=1e-9
    )
    assert questions_needed(discordance, found, power=power, design_effect=effect) == pytest.approx(
        2525, rel=0.01
    )


def test_hopeless_designs_are_refused():
    with pytest.raises(MapflowError, match="use more questions"):
        minimal_detectable_effect(20, 0.05)
    with pytest.raises(MapflowError, match="at least the difference"):
        power_of_difference(100, 0.05, 0.1)


def test_power_of_non_inferiority_agrees_with_simulated_verdicts():
    n, discordance, difference = 1484, 0.08, -0.003
    rng = np.random.default_rng(0)
    cells = rng.multinomial(
        n, [(discordance + difference) / 2, (discordance - difference) / 2, 1 - discordance], 1500
    )
    counts = [PairedDifference.of_counts(int(g), int(lo), n) for g, lo, _ in cells]
    verdicts = [non_inferiority(counted).verdict for counted in counts]
    simulated = np.mean([v == "non-inferior" for v in verdicts])
    assert power_of_non_inferiority(n, discordance, difference) == pytest.approx(
        simulated, abs=0.05
    )


@pytest.mark.parametrize(("n", "difference"), [(2525, -0.003), (1484, -0.010), (1484, 0.002)])
def test_largest_discordance_is_where_the_interval_touches_the_margin(n, difference):
    limit = largest_non_inferior_discordance(n, difference)
    assert limit is not None
    for share, wins in ((limit * 0.97, True), (limit * 1.03, False)):
        gained, lost = (share + difference) / 2 * n, (share - difference) / 2 * n
        scale = 1000  # whole counts of a finer table, worth n questions
        counted = PairedDifference.of_counts(
            round(gained * scale), round(lost * scale), n * scale, float(scale)
        )
        assert (counted.interval().low > -0.02) == wins


def test_differences_beyond_the_margin_are_never_non_inferior():
    assert largest_non_inferior_discordance(2525, -0.021) is None
    assert largest_non_inferior_discordance(100, -0.015) is None, "its own flips say too little"
    assert largest_non_inferior_discordance(10**6, 0.1) == 1.0

"""The promised error rates, measured on simulated runs with known truth.

Seeds are fixed, so rates are reproducible. Their standard errors are 0.3 to 0.5 points.
"""

from pathlib import Path

import pytest
from error_rates import coverage, false_positives, macro_errors, sweep_errors, wrong_verdicts
from simulated_runs import Design, fifty_videos, tvbench_videos, unequal_videos

pytestmark = pytest.mark.slow

FIXED = {"50 videos × 10": fifty_videos, "unequal videos": unequal_videos}


@pytest.mark.parametrize("videos", FIXED)
@pytest.mark.parametrize("discordance", [0.1, 0.2])
def test_default_test_keeps_its_level_where_the_unclustered_one_does_not(videos, discordance):
    rates = false_positives(Design(videos, FIXED[videos](), 0.3, discordance), 4000)
    assert 4 <= rates["default"] <= 6, rates
    assert rates["sign-flip, exact p"] <= rates["default"]
    assert rates["McNemar, unclustered"] > 10, rates


def test_default_test_keeps_its_level_with_tvbench_videos(real_data: Path):
    sizes = tvbench_videos(real_data)
    rates = false_positives(Design("TVBench", sizes, 0.3, 0.1), 5000)
    assert 4 <= rates["default"] <= 6, rates
    assert rates["McNemar, unclustered"] > 6, rates


@pytest.mark.parametrize("videos", FIXED)
@pytest.mark.parametrize("difference", [0.0, -0.02, -0.1])
def test_intervals_cover_the_true_difference(videos, difference):
    rates = coverage(Design(videos, FIXED[videos](), 0.3, 0.2, difference), 3000)
    assert 94 <= rates["default"] <= 96, rates
    assert rates["Tango, unclustered"] < 90, rates


def test_intervals_cover_with_tvbench_videos(real_data: Path):
    rates = coverage(Design("TVBench", tvbench_videos(real_data), 0.3, 0.1, -0.02), 4000)
    assert 94 <= rates["default"] <= 96, rates


@pytest.mark.parametrize("correlation", [0.0, 0.3])
@pytest.mark.parametrize("videos", FIXED)
def test_non_inferiority_is_rarely_wrong_at_the_margin(videos, correlation):
    rates = wrong_verdicts(Design(videos, FIXED[videos](), correlation, 0.1, -0.02), 3000)
    assert rates["non-inferior"] <= 5 and rates["inferior"] <= 5, rates
    assert rates["non-inferior"] > 1, "a test without errors would never claim anything"


def test_macro_average_keeps_level_and_coverage():
    rates = macro_errors(Design("50 videos × 10", fifty_videos(), 0.3, 0.2), 1500)
    assert 94 <= rates["coverage"] <= 97, rates
    assert 3.5 <= rates["false positives"] <= 6, rates


@pytest.mark.parametrize("affected", [0, 9])
def test_sweeps_rarely_name_a_layer_that_does_nothing(affected):
    rates = sweep_errors(700, affected=affected)
    assert rates["any false layer"] <= 5 + 1.65 * 0.82, "above 5 % by more than chance"
    assert rates["all layers covered"] >= 95 - 1.65 * 0.82, rates
    assert rates["any false layer, uncorrected"] > 15, rates

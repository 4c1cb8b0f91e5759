"""Means by video, interactions and power against other routes to the same number, and against
simulation; bounds are Monte-Carlo errors."""

import math

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.stats import binom, ttest_1samp

from mapflow.results.contract.errors import MapflowError
from mapflow.results.statistics import (
    clustered_mean,
    detectable_difference,
    interaction,
    kish_design_effect,
    minimal_detectable_effect,
    non_inferiority,
    paired_difference,
    power_of_difference,
    power_of_non_inferiority,
    questions_for_non_inferiority,
)
from tests.results.calibration.simulated_runs import (
    Videos,
    draw_models,
    draw_probabilities,
    draw_runs,
    videos,
)

UNEQUAL = np.repeat(np.arange(5), [3, 1, 5, 2, 4])


def mean_of(values, cluster=None):
    found = clustered_mean(values, cluster)
    assert found is not None
    return found


def bell_mccaffrey(values, cluster):
    """Variance and degrees of freedom from the matrices of the paper (CR2, working identity)."""
    n = len(values)
    residual_maker = np.eye(n) - np.ones((n, n)) / n
    residuals, variance, parts = residual_maker @ values, 0.0, []
    for one in np.unique(cluster):
        inside = cluster == one
        eigenvalues, vectors = np.linalg.eigh(residual_maker[np.ix_(inside, inside)])
        adjusted = vectors @ np.diag(eigenvalues**-0.5) @ vectors.T @ np.ones(inside.sum()) / n
        variance += (adjusted @ residuals[inside]) ** 2
        parts.append(residual_maker[:, inside] @ adjusted)
    form = np.array(parts) @ np.array(parts).T
    return variance, np.trace(form) ** 2 / (form**2).sum()


def test_the_mean_by_video_is_bell_mccaffreys():
    values = np.random.default_rng(0).normal(0.3, 1, len(UNEQUAL))
    interval, test = mean_of(values, UNEQUAL)
    variance, freedom = bell_mccaffrey(values, UNEQUAL)
    assert test.statistic == pytest.approx(values.mean() / math.sqrt(variance), rel=1e-12)
    assert test.method == f"cluster-robust t, {freedom:.1f} degrees of freedom"
    assert (interval.low <= 0 <= interval.high) == (test.p_value >= 0.05)


@pytest.mark.parametrize("cluster", [None, np.arange(12) // 3])
def test_with_videos_of_one_size_it_is_the_t_test_of_their_means(cluster):
    values = np.random.default_rng(1).normal(0.5, 1, 12)
    expected = ttest_1samp(values if cluster is None else values.reshape(4, 3).mean(axis=1), 0)
    interval, test = mean_of(values, cluster)
    assert test.p_value == pytest.approx(expected.pvalue, rel=1e-10)
    limits = expected.confidence_interval()
    assert (interval.low, interval.high) == pytest.approx((limits.low, limits.high), rel=1e-10)


def test_a_mean_without_variation_has_no_error_to_estimate():
    assert clustered_mean(np.full(6, 0.5)) is None  # equal, but not 0
    assert clustered_mean(np.array([0.1, 0.2]), np.zeros(2, int)) is None  # one video
    assert clustered_mean(np.array([0.1])) is None
    interval, test = mean_of(np.zeros(4))
    assert (interval.low, interval.high, test.p_value) == (0, 0, 1)


@pytest.mark.parametrize("sizes", [[1] * 20, [10] * 15, [1, 2, 3, 8, 9] * 8])
def test_exchangeable_runs_have_five_percent_false_positives_by_probability(sizes):
    """The probabilities of two runs, exchangeable and correlated by video (ICC 0.3)."""
    rng, draws, shape = np.random.default_rng(2), 1500, Videos(tuple(sizes))
    found = 0
    for _ in range(draws):
        change = draw_probabilities(rng, shape, 0.3, skewed=False)
        found += mean_of(change, shape.cluster)[1].p_value < 0.05
    assert found / draws == pytest.approx(0.05, abs=3 * math.sqrt(0.05 * 0.95 / draws))


def test_an_interaction_is_the_difference_of_differences():
    shape = videos((400, 3))
    rng, cluster = np.random.default_rng(3), shape.cluster
    first, second = draw_models(rng, shape, 0.3, (0.2, 0.2), (0.7, 0.7))
    interval, test = interaction(first, second, cluster)
    own = [model[1].mean() - model[0].mean() for model in (first, second)]
    assert interval.estimate == pytest.approx(own[1] - own[0], abs=1e-12)
    change = (second[1].astype(float) - second[0]) - (first[1].astype(float) - first[0])
    robust = sm.OLS(change, np.ones(len(change))).fit(
        cov_type="cluster", cov_kwds={"groups": cluster}
    )
    low, high = robust.conf_int()[0]
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.002)
    assert (test.p_value < 0.05) == (not interval.low <= 0 <= interval.high)
    # Without a change in the first model it is the second model's own difference.
    unchanged = np.stack([first[0], first[0]])
    alone = paired_difference(second[1].astype(int) - second[0], cluster)
    found, _ = interaction(unchanged, second, cluster)
    assert found.estimate == pytest.approx(alone.estimate)
    assert (found.low, found.high) == pytest.approx(
        (alone.interval().low, alone.interval().high), abs=0.003
    )


@pytest.mark.parametrize(("sizes", "correlation"), [([1] * 60, 0.0), ([5] * 24, 0.3)])
def test_models_with_the_same_difference_rarely_interact(sizes, correlation):
    rng, draws, shape = np.random.default_rng(4), 150, Videos(tuple(sizes))
    found = 0
    for _ in range(draws):
        first, second = draw_models(rng, shape, correlation, (0.2, 0.2), (0.9, 0.9))
        found += interaction(first, second, shape.cluster)[1].p_value < 0.05
    assert found / draws <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / draws)


def test_interactions_without_a_change_of_one_video_or_without_questions():
    same = np.ones((2, 30), dtype=bool)
    interval, test = interaction(same, same, np.arange(30))
    assert interval.low < 0 == interval.estimate < interval.high and test.p_value == 1
    with pytest.raises(MapflowError, match="all 30 questions are about one video"):
        interaction(same, same, np.zeros(30, int))
    with pytest.raises(MapflowError, match="without questions"):
        interaction(same[:, :0], same[:, :0])


@pytest.mark.parametrize(
    ("shape", "correlation", "flips", "difference"),
    [
        (videos((2000, 1)), 0.0, 0.08, 0.0),
        (videos((2000, 1)), 0.0, 0.08, 0.02),
        (videos((300, 6)), 0.2, 0.08, -0.01),
        (videos((100, 8), (150, 4), (400, 1)), 0.3, 0.05, 0.01),
    ],
)
def test_the_predicted_power_is_the_share_of_simulated_verdicts(
    shape, correlation, flips, difference
):
    """Power comes from a normal approximation, so 3 points are allowed beside the sampling."""
    rng, draws, n = np.random.default_rng(5), 400, sum(shape.sizes)
    effect = kish_design_effect(np.array(shape.sizes), correlation)
    shown = found = 0
    for _ in range(draws):
        before, after = draw_runs(rng, shape, correlation, flips, difference)
        cluster = shape.cluster if correlation else None
        counted = paired_difference(after.astype(int) - before, cluster)
        shown += non_inferiority(counted).verdict == "non-inferior"
        found += counted.p_value() < 0.05
    allowed = 0.03 + 3 * math.sqrt(0.25 / draws)
    expected = power_of_non_inferiority(n, flips, difference, design_effect=effect)
    assert shown / draws == pytest.approx(expected, abs=allowed)
    if difference:
        expected = power_of_difference(n, flips, difference, design_effect=effect)
        assert found / draws == pytest.approx(expected, abs=allowed)


@pytest.mark.parametrize(("n", "flips", "difference"), [(100, 0.02, 0.02), (150, 0.08, -0.06)])
def test_with_few_flips_the_power_is_that_of_the_test(n, flips, difference):
    """The normal approximation finds a loss of two questions in a hundred in 27 % of runs."""
    rng, draws = np.random.default_rng(6), 400
    found = 0
    for _ in range(draws):
        before, after = draw_runs(rng, videos((n, 1)), 0.0, flips, difference)
        found += paired_difference(after.astype(int) - before).p_value() < 0.05
    expected = power_of_difference(n, flips, difference)
    assert found / draws == pytest.approx(expected, abs=0.02 + 3 * math.sqrt(0.25 / draws))
    assert expected < 0.1 or flips > 0.02


@pytest.mark.parametrize(("flips", "difference", "effect"), [(0.1, 0.0, 1.0), (0.3, -0.005, 1.7)])
def test_as_many_questions_as_needed_reach_the_power(flips, difference, effect):
    n = questions_for_non_inferiority(flips, difference, 0.02, power=0.9, design_effect=effect)
    assert power_of_non_inferiority(
        n, flips, difference, 0.02, design_effect=effect
    ) == pytest.approx(0.9)
    assert n > questions_for_non_inferiority(flips, difference, 0.03, power=0.9)
    with pytest.raises(MapflowError, match="no number of questions shows that a difference of -2"):
        questions_for_non_inferiority(flips, -0.02, 0.02)


def test_what_a_finished_run_detects():
    assert detectable_difference(2525, 0.1) == pytest.approx(minimal_detectable_effect(2525, 0.1))
    few = detectable_difference(100, 0.0)  # every flip is a loss
    assert few is not None
    assert power_of_difference(100, few, few) == pytest.approx(0.8)
    assert binom.sf(4, 100, few) == pytest.approx(0.8)  # five losses have a mid-p value of 0.03
    assert detectable_difference(2, 0.5) is None

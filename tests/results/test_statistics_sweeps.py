"""Sweeps over layers, and several seeds as one condition."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from mapflow.results.contract.errors import MapflowError
from mapflow.results.statistics import paired_difference, seed_condition, simultaneous_bands


def sweep(n=300, layers=12, seed=0):
    rng = np.random.default_rng(seed)
    change = rng.standard_normal((n, layers)) * 20
    change[:, 4:7] -= 12
    return change, np.repeat(np.arange(n // 3), 3)


def test_bands_and_significance_find_the_layers_with_an_effect():
    change, cluster = sweep()
    found = simultaneous_bands(change, cluster)
    assert found.significant.tolist() == [4 <= layer < 7 for layer in range(12)]
    assert found.mean == pytest.approx(change.mean(axis=0))
    assert ((found.high < 0) | (found.low > 0)).tolist() == found.significant.tolist()


def test_one_layer_is_nearly_a_t_test():
    change, _ = sweep(n=150)
    for layer in (0, 3, 5):
        found = simultaneous_bands(change[:, [layer]], resamples=20_000)
        reference = stats.ttest_1samp(change[:, layer], 0.0)
        interval = reference.confidence_interval(0.95)
        assert found.p_adjusted[0] == pytest.approx(reference.pvalue, abs=0.02)
        assert (found.low[0], found.high[0]) == pytest.approx(
            (interval.low, interval.high), abs=0.15
        )


def test_bands_are_standard_errors_times_the_critical_value():
    change, cluster = sweep(n=30)
    found = simultaneous_bands(change)
    error = change.std(axis=0, ddof=1) / 30**0.5
    assert found.high - found.mean == pytest.approx(found.critical_value * error)
    by_video = simultaneous_bands(change, cluster)
    error = change.reshape(10, 3, 12).mean(axis=1).std(axis=0, ddof=1) / 10**0.5
    assert by_video.mean - by_video.low == pytest.approx(by_video.critical_value * error)


def test_skewed_changes_need_a_larger_critical_value():
    normal = np.random.default_rng(3).standard_normal((40, 10))
    symmetric, skewed = simultaneous_bands(normal), simultaneous_bands(np.exp(normal) - np.exp(0.5))
    assert skewed.critical_value > 1.3 * symmetric.critical_value


def test_more_layers_need_more_evidence():
    change, cluster = sweep()
    alone, together = (
        simultaneous_bands(change[:, :1], cluster),
        simultaneous_bands(change, cluster),
    )
    assert together.critical_value > alone.critical_value + 0.3
    assert (together.p_adjusted[0] >= alone.p_adjusted[0]).all()
    bonferroni = stats.norm.isf(0.025 / 12)
    assert together.critical_value < 1.05 * bonferroni


def test_copies_of_a_layer_cost_nothing():
    change, cluster = sweep(layers=7)
    copied = np.repeat(change[:, [5]], 30, axis=1)
    assert simultaneous_bands(copied, cluster).critical_value == pytest.approx(
        simultaneous_bands(change[:, [5]], cluster).critical_value, abs=1e-9
    )


def test_adjusted_p_values_step_down():
    """With the strong layers out of the way, the rest compete among themselves only."""
    change, cluster = sweep()
    weak = [layer for layer in range(12) if not 4 <= layer < 7]
    everything = simultaneous_bands(change, cluster)
    rest = simultaneous_bands(change[:, weak], cluster)
    assert everything.p_adjusted[weak] == pytest.approx(rest.p_adjusted, abs=0.03)


def test_units_and_the_order_of_layers_do_not_matter():
    change, cluster = sweep()
    plain = simultaneous_bands(change, cluster)
    scaled = simultaneous_bands(change[:, ::-1] * 1e-9, cluster)
    assert scaled.p_adjusted[::-1] == pytest.approx(plain.p_adjusted, abs=1e-12)
    assert scaled.low[::-1] == pytest.approx(plain.low * 1e-9)
    assert simultaneous_bands(change, cluster, seed=1).critical_value != plain.critical_value


def test_layers_without_any_change_are_certain_and_insignificant():
    change, cluster = sweep()
    change[:, 2] = 0.0
    change[:, 3] = -7.0
    found = simultaneous_bands(change, cluster)
    assert (found.mean[2], found.low[2], found.high[2], found.p_adjusted[2]) == (0, 0, 0, 1)
    assert (
        found.significant[3]
        and found.low[3] == pytest.approx(-7)
        and found.high[3] == pytest.approx(-7)
    )
    assert np.isfinite(found.p_adjusted).all()


def test_sweeps_refuse_what_they_cannot_use():
    change, cluster = sweep()
    change[7, 3] = np.inf
    with pytest.raises(MapflowError, match=r"question 8, layer 4: change inf .*1 such"):
        simultaneous_bands(change, cluster)
    with pytest.raises(MapflowError, match="two videos"):
        simultaneous_bands(np.ones((5, 2)), np.zeros(5, int))


def draw_seeds(rng, seeds, n, spread):
    """A baseline at 60 % and seeds that share its difficulty; `spread` shifts whole seeds."""
    cluster = np.repeat(np.arange(n // 4), 4)
    difficulty = rng.standard_normal(n // 4)[cluster] * 0.5
    baseline = rng.standard_normal(n) + difficulty < 0.25
    shift = rng.standard_normal(seeds)[:, None] * spread
    return baseline, rng.standard_normal((seeds, n)) + difficulty + shift < -0.1, cluster


def test_seed_condition_gives_each_variance_its_own_quantile():
    baseline, seeds, cluster = draw_seeds(np.random.default_rng(0), 5, 400, 0.3)
    found = seed_condition(baseline, seeds, cluster)
    accuracies = seeds.mean(axis=1)
    assert found.accuracies == pytest.approx(accuracies)
    assert found.between_seeds == pytest.approx(np.std(accuracies, ddof=1))
    estimate = accuracies.mean() - baseline.mean()
    assert found.difference.estimate == pytest.approx(estimate)
    alone = replace(found.counted, seed_variance=0.0)
    for limit in (found.difference.low, found.difference.high):
        by_question = stats.norm.isf(0.025) * (estimate - limit) / alone.score(limit)
        between = stats.t.isf(0.025, 4) * (np.var(accuracies, ddof=1) / 5) ** 0.5
        assert abs(estimate - limit) == pytest.approx(np.hypot(by_question, between), rel=1e-6)
    assert (found.test.p_value < 0.05) == (not found.difference.low <= 0 <= found.difference.high)


@pytest.mark.parametrize("spread", [0.0, 0.2])
def test_seed_intervals_cover_whether_or_not_seeds_matter(spread):
    rng = np.random.default_rng(1)
    truth = np.mean([_true_difference(rng, spread) for _ in range(300)])
    hits = 0
    for _ in range(400):
        hits += seed_condition(*draw_seeds(rng, 4, 400, spread)).counted.p_value(truth) >= 0.05
    assert 93 <= hits / 4 <= 100


def _true_difference(rng, spread):
    baseline, seeds, _ = draw_seeds(rng, 20, 2000, spread)
    return seeds.mean() - baseline.mean()


def test_seeds_that_never_differ_are_compared_like_one_run():
    baseline, seeds, cluster = draw_seeds(np.random.default_rng(2), 1, 200, 0.0)
    found = seed_condition(baseline, np.repeat(seeds, 3, axis=0), cluster)
    one = paired_difference(seeds[0].astype(int) - baseline, cluster)
    assert found.difference.low == pytest.approx(one.interval().low, abs=1e-12)
    assert found.test.p_value == pytest.approx(one.p_value(), rel=1e-9)
    everything = np.ones(200, bool)
    tied = seed_condition(everything, np.ones((3, 200), bool), cluster)
    assert tied.test.p_value == 1.0
    assert tied.difference.low < -0.005 < 0.005 < tied.difference.high, "never certain"


def test_one_seed_is_no_condition():
    with pytest.raises(MapflowError, match="at least two seeds"):
        seed_condition(np.ones(4, bool), np.ones((1, 4), bool))

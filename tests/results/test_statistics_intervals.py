"""Intervals against published examples and reference implementations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, norm, t

from mapflow.results.contract.errors import MapflowError
from mapflow.results.statistics import (
    accuracy,
    cluster_bootstrap,
    clustered_variance,
    design_effect,
    kish_design_effect,
    macro_accuracy,
    macro_difference,
    paired_difference,
    tango_interval,
    tango_score,
    wilson,
)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_reproduces_newcombe_1998_table_1(successes, n, low, high):
    """Newcombe (1998), Statistics in Medicine 17:857, Table I, method 3."""
    found = wilson(successes, n)
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)


@given(st.integers(1, 3000), st.floats(0, 1), st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_agrees_with_scipy(n, share, confidence):
    successes = round(share * n)
    found = wilson(successes, n, confidence)
    reference = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert found.low == pytest.approx(reference.low, abs=1e-10)
    assert found.high == pytest.approx(reference.high, abs=1e-10)


def test_tango_reproduces_its_paper():
    """Tango (1998), section 6.1, contact lenses: 43 pairs right under both, 1 lost, margin 0.1."""
    score = tango_score(0, 1, 44, -0.1)
    assert round(score, 3) == 1.709 and round(norm.sf(score), 3) == 0.044
    assert round(tango_interval(0, 1, 44, 0.90).low, 3) == -0.096


def test_tango_agrees_with_propcis():
    """R package PropCIs 0.3-0: scoreci.mp(25, 28, 618, 0.90), printed to four decimals."""
    found = tango_interval(28, 25, 618, 0.90)
    assert (round(found.low, 4), round(found.high, 4)) == (-0.0148, 0.0247)


def test_tango_of_no_difference_is_mcnemar():
    assert tango_score(30, 12, 200, 0.0) == pytest.approx(18 / 42**0.5, abs=1e-12)


def quartic_limits(gained: int, lost: int, n: int, z: float) -> list[float]:
    """The limits as roots of a polynomial (after Yang, Sun & Hardin 2013): the score, squared."""
    d = np.polynomial.Polynomial([0, 1])
    b = (2 * n - gained + lost) * d - gained - lost
    half_variance = ((gained - lost - n * d) ** 2) / z**2 + b / 2 - n * d * (1 - d)
    roots = (half_variance**2 - (b**2 + 8 * n * lost * d * (1 - d)) / 4).roots()
    real = roots[np.abs(roots.imag) < 1e-7].real
    return [r for r in real if -1 < r < 1 and abs(abs(tango_score(gained, lost, n, r)) - z) < 1e-5]


@settings(max_examples=60)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 2000))
def test_tango_agrees_with_the_closed_form(gained, lost, ties):
    n = gained + lost + ties
    found = tango_interval(gained, lost, n)
    roots = quartic_limits(gained, lost, n, norm.isf(0.025))
    assert (
        min(abs(found.low - r) for r in roots) < 1e-6
        and min(abs(found.high - r) for r in roots) < 1e-6
    )


@settings(max_examples=60)
@given(
    st.integers(0, 40), st.integers(0, 40), st.integers(0, 500), st.sampled_from([0.9, 0.95, 0.99])
)
def test_tango_limits_solve_the_score_equation_and_mirror(gained, lost, ties, confidence):
    n = max(1, gained + lost + ties)
    found, z = tango_interval(gained, lost, n, confidence), norm.isf((1 - confidence) / 2)
    mirrored = tango_interval(lost, gained, n, confidence)
    assert -1 <= found.low <= found.estimate <= found.high <= 1
    assert (-mirrored.low, -mirrored.high) == pytest.approx((found.high, found.low), abs=1e-10)
    if found.low > -1:
        assert tango_score(gained, lost, n, found.low) == pytest.approx(z, abs=1e-8)
    if found.high < 1:
        assert tango_score(gained, lost, n, found.high) == pytest.approx(-z, abs=1e-8)


def test_without_discordant_pairs_tango_has_its_closed_form():
    z2 = norm.isf(0.025) ** 2
    found = tango_interval(0, 0, 100)
    assert (found.low, found.high) == pytest.approx((-z2 / (100 + z2), z2 / (100 + z2)), abs=1e-12)


def test_impossible_tables_and_levels_are_refused():
    for counts in ((5, 6, 10), (-1, 2, 10), (0, 0, 0)):
        with pytest.raises(MapflowError, match="not a paired table"):
            tango_interval(*counts)
    with pytest.raises(MapflowError, match="confidence 95"):
        tango_interval(1, 2, 10, confidence=95)


@given(st.lists(st.integers(0, 5), min_size=3, max_size=40), st.integers(0, 2**32 - 1))
def test_clustered_variance_agrees_with_its_definition(cluster, seed):
    group = np.unique(cluster, return_inverse=True)[1]
    values = np.random.default_rng(seed).integers(-1, 2, len(group))
    m, mean = group.max() + 1, values.mean()
    slow = sum((values[group == g] - mean).sum() ** 2 for g in range(m)) / len(values) ** 2
    expected = slow * m / (m - 1) if m > 1 else 0.0
    assert clustered_variance(values, group) == pytest.approx(expected, abs=1e-12)


def test_design_effect_of_identical_answers_is_the_cluster_size():
    rng = np.random.default_rng(0)
    by_video = rng.integers(-1, 2, 4000)
    values, cluster = np.repeat(by_video, 5), np.repeat(np.arange(4000), 5)
    assert design_effect(values, cluster) == pytest.approx(5.0, rel=0.01)
    assert design_effect(rng.permutation(values), cluster) == pytest.approx(1.0, abs=0.1)
    assert design_effect(values, np.arange(len(values))) == design_effect(values, None) == 1.0
    assert kish_design_effect(np.full(4000, 5), 0.5) == 3.0
    tied, unequal = np.zeros(6), np.array([0, 0, 0, 0, 1, 1])
    assert design_effect(tied, unequal) == pytest.approx((16 + 4) / 6), (
        "the worst case where nothing varies"
    )


def test_clustered_interval_is_tango_on_effective_counts():
    rng = np.random.default_rng(1)
    cluster = np.repeat(np.arange(60), 8)
    difference = np.repeat(rng.choice([-1, 0, 0, 0, 1], 60), 8) * rng.integers(0, 2, 480)
    counted = paired_difference(difference, cluster)
    effect = counted.design_effect
    assert effect > 1.5
    found = counted.interval()
    by_hand = tango_interval(counted.gained / effect, counted.lost / effect, 480 / effect)
    assert (found.low, found.high) == (by_hand.low, by_hand.high)
    assert found.estimate == difference.mean() and "cluster" in found.method
    alone = paired_difference(difference).interval()
    assert found.high - found.low > 1.2 * (alone.high - alone.low)


def test_clustered_accuracy_is_wilson_on_effective_counts():
    correct, cluster = np.repeat([True, False] * 30, 5), np.repeat(np.arange(60), 5)
    found, independent = accuracy(correct, cluster), wilson(150, 300)
    as_videos = wilson(30, 60)
    assert found.estimate == 0.5
    assert found.high - found.low > 2 * (independent.high - independent.low)
    assert (found.low, found.high) == pytest.approx((as_videos.low, as_videos.high), abs=0.002)


def test_bootstrap_agrees_with_resampling_one_cluster_at_a_time():
    rng = np.random.default_rng(2)
    cluster = np.repeat(np.arange(12), rng.integers(10, 40, 12))
    difference = rng.choice([-1, 0, 0, 1], len(cluster))
    found = cluster_bootstrap(difference, cluster, resamples=20_000, seed=5)
    members = [difference[cluster == g] for g in np.unique(cluster)]
    means = []
    for _ in range(10_000):
        drawn = np.concatenate([members[g] for g in rng.integers(0, len(members), len(members))])
        means.append(drawn.mean())
    tail = norm.cdf(-((12 / 11) ** 0.5) * t.isf(0.025, 11))  # Hesterberg's widening for 12 clusters
    low, high = np.quantile(means, [tail, 1 - tail])
    assert found.high - found.low == pytest.approx(high - low, rel=0.06)
    assert found.low + found.high == pytest.approx(low + high, abs=0.06 * (high - low))
    assert found == cluster_bootstrap(difference, cluster, resamples=20_000, seed=5)
    assert found != cluster_bootstrap(difference, cluster, resamples=20_000, seed=6)
    with pytest.raises(MapflowError, match="two clusters"):
        cluster_bootstrap(difference, np.zeros(len(cluster), int))


def test_macro_average_counts_every_subtask_the_same():
    task = np.repeat([0, 1], [900, 100])
    difference = np.zeros(1000, int)
    difference[900:930] = 1
    found = macro_difference(difference, task)
    assert found.interval.estimate == pytest.approx(0.15)
    parts = [paired_difference(difference[task == t]).interval() for t in (0, 1)]
    below = np.hypot(*[part.estimate - part.low for part in parts]) / 2
    above = np.hypot(*[part.high - part.estimate for part in parts]) / 2
    assert (found.interval.low, found.interval.high) == pytest.approx(
        (0.15 - below, 0.15 + above), abs=1e-12
    )
    assert found.test.p_value < 0.001
    accurate = macro_accuracy(difference == 1, task)
    assert accurate.estimate == pytest.approx(0.15) and accurate.low > 0


def test_macro_interval_of_one_subtask_is_the_plain_one():
    rng = np.random.default_rng(3)
    difference, cluster = rng.choice([-1, 0, 0, 1], 200), np.repeat(np.arange(50), 4)
    found = macro_difference(difference, np.zeros(200, int), cluster).interval
    plain = paired_difference(difference, cluster).interval()
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high), abs=1e-12)


def test_a_subtask_without_flips_still_adds_its_uncertainty():
    rng = np.random.default_rng(5)
    task, cluster = np.repeat([0, 1], 120), np.repeat(np.arange(60), 4)
    difference = np.where(task == 0, rng.choice([-1, 0, 1], 240), 0)
    found = macro_difference(difference, task, cluster).interval
    parts = [
        paired_difference(difference[task == code], np.repeat(np.arange(30), 4)).interval()
        for code in (0, 1)
    ]
    below = np.hypot(*[part.estimate - part.low for part in parts]) / 2
    assert found.estimate - found.low == pytest.approx(below, abs=1e-12)


def test_subtasks_that_share_videos_are_not_independent():
    """Each video has one question per subtask with equal outcomes: no gain over one subtask."""
    outcome = np.random.default_rng(4).choice([-1, 0, 1], 150)
    difference, task, cluster = (
        np.tile(outcome, 2),
        np.repeat([0, 1], 150),
        np.tile(np.arange(150), 2),
    )
    shared = macro_difference(difference, task, cluster).interval
    single = paired_difference(outcome).interval()
    assert (shared.low, shared.high) == pytest.approx((single.low, single.high), abs=1e-9)

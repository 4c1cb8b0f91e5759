"""Intervals against published examples and reference implementations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, norm, t

from mapflow.results.contract.errors import MapflowError
from mapflow.results.statistics import (
    accuracy,
    cluster_bootstrap,
    clustered_standard_error,
    macro_difference,
    paired_difference,
    seeds_accuracy,
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


@pytest.mark.parametrize("right", [0, 2, 3])
def test_one_video_tells_nothing_about_the_accuracy_on_others(right):
    correct = np.arange(3) < right
    found = accuracy(correct, np.zeros(3, int))
    assert (found.estimate, found.low, found.high) == (right / 3, 0, 1)
    assert "one video" in found.method
    seeds = seeds_accuracy(np.stack([correct, correct]), np.zeros(3, int))
    assert (seeds.low, seeds.high) == (0, 1)
    assert clustered_standard_error(correct, np.zeros(3, int)) is None

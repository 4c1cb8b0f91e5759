"""The test of a difference: against slow references, and its interval is its own inversion."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from mapflow.results.contract.errors import MapflowError
from mapflow.results.statistics import (
    PairedDifference,
    RunOutcomes,
    accuracy,
    compare_runs,
    macro_accuracy,
    macro_difference,
    non_inferiority,
    paired_difference,
)
from mapflow.results.statistics.mid_p import restricted_loss


def mid_p_tails(gained, lost, n, difference):
    """The tails by adding up the whole distribution of the net gain, one question at a time."""
    if difference < 0:
        return mid_p_tails(lost, gained, n, -difference)[::-1]
    loss = restricted_loss(gained, lost, n, difference)
    step = np.array([loss, 1 - 2 * loss - difference, loss + difference])
    probability = np.ones(1)
    for _ in range(n):
        probability = np.convolve(probability, step)
    at = gained - lost + n
    half = probability[at] / 2
    return probability[at + 1 :].sum() + half, probability[:at].sum() + half


@pytest.mark.parametrize(
    ("gained", "lost", "n", "difference"),
    [
        (0, 5, 100, 0.0),
        (0, 5, 100, -0.1),
        (3, 8, 100, -0.15),
        (2, 2, 100, -0.05),
        (20, 40, 1000, -0.02),
        (0, 1, 44, -0.1),
        (0, 28, 30, -0.8),
        (12, 9, 60, 0.2),
    ],
)
def test_the_tails_are_mid_p_values(gained, lost, n, difference):
    found = PairedDifference.of_counts(gained, lost, n).tails(difference)
    exact = mid_p_tails(gained, lost, n, difference)
    assert sum(found) == pytest.approx(1.0)
    assert found == pytest.approx(exact, abs=0.0065)
    assert min(found) == pytest.approx(min(exact), rel=0.08)


def test_without_changes_the_tail_is_exact():
    found = PairedDifference.of_counts(0, 0, 100)
    assert found.tails(-0.03)[0] == pytest.approx(0.5 * 0.97**100, rel=1e-9)
    assert found.p_value() == 1.0
    assert found.interval().low == pytest.approx(-(1 - 0.05**0.01), rel=1e-6)


@settings(max_examples=40)
@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 60), st.floats(0.001, 0.9))
def test_restricted_probabilities_are_the_most_likely_ones(gained, lost, ties, difference):
    n = gained + lost + ties
    assume(n)

    def unlikely(loss):
        shares = np.clip([loss + difference, loss, 1 - difference - 2 * loss], 1e-12, 1)
        return -float(np.array([gained, lost, ties]) @ np.log(shares))

    found = restricted_loss(gained, lost, n, difference)
    best = minimize_scalar(unlikely, bounds=(0, (1 - difference) / 2), method="bounded")
    assert unlikely(found) <= best.fun + 1e-4


runs = st.tuples(
    st.lists(st.integers(1, 6), min_size=2, max_size=25),
    st.sampled_from([0.03, 0.15, 0.5]),
    st.sampled_from([0.1, 0.5, 0.9]),
    st.integers(0, 2**32 - 1),
)


def drawn(case):
    sizes, flips, gains, seed = case
    rng = np.random.default_rng(seed)
    cluster = np.repeat(np.arange(len(sizes)), sizes)
    sign = np.where(rng.random(len(cluster)) < gains, 1, -1)
    return np.where(rng.random(len(cluster)) < flips, sign, 0), cluster, rng


@settings(max_examples=150, deadline=None)
@given(runs, st.floats(0.005, 0.3), st.booleans())
def test_the_interval_is_the_inversion_of_the_test(case, margin, clustered):
    difference, cluster, rng = drawn(case)
    weight = rng.choice([0.5, 1.0, 3.0], len(difference))
    for weights in (None, weight * len(weight) / weight.sum()):
        found = paired_difference(difference, cluster if clustered else None, weights)
        interval = found.interval()
        assert interval.low <= found.estimate <= interval.high
        for value in (0.0, -margin, margin):
            inside = interval.low <= value <= interval.high
            assert inside == (found.p_value(value) >= 0.05), (found, value, interval)
        verdict = non_inferiority(found, margin)
        assert (verdict.verdict == "non-inferior") == (interval.low > -margin)
        assert (verdict.verdict == "inferior") == (interval.high < -margin)


@settings(max_examples=80, deadline=None)
@given(runs, st.floats(-0.5, 0.5))
def test_swapped_runs_mirror_the_result(case, value):
    difference, cluster, _ = drawn(case)
    there, back = paired_difference(difference, cluster), paired_difference(-difference, cluster)
    assert back.score(-value) == pytest.approx(-there.score(value), abs=1e-9)
    assert back.interval().low == pytest.approx(-there.interval().high, abs=1e-9)


@settings(max_examples=80, deadline=None)
@given(runs)
def test_the_test_ignores_whose_videos_unchanged_questions_share_and_their_order(case):
    """Exactly, unless so few videos hold the questions that far differences fit again."""
    difference, cluster, rng = drawn(case)
    elsewhere = cluster.copy()
    unchanged = np.flatnonzero(difference == 0)
    elsewhere[unchanged] = rng.integers(0, cluster.max() + 4, len(unchanged))
    order = rng.permutation(len(difference))
    here, there = paired_difference(difference, cluster), paired_difference(difference, elsewhere)
    assert there._score_at(0.0) == pytest.approx(here._score_at(0.0), rel=1e-9)
    if here._monotone and there._monotone:
        assert there.p_value() == pytest.approx(here.p_value(), rel=1e-9)
    shuffled = paired_difference(difference[order], cluster[order])
    assert shuffled.p_value() == pytest.approx(here.p_value(), rel=1e-9)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 300), st.floats(0.005, 0.2))
def test_another_loss_never_helps(gained, lost, ties, margin):
    n = gained + lost + ties
    before = PairedDifference.of_counts(gained, lost, n)
    after = PairedDifference.of_counts(gained, lost + 1, n)
    assert after.tails(-margin)[0] >= before.tails(-margin)[0] - 1e-9
    assert after.interval().low <= before.interval().low + 1e-9


def compared(difference, video, task=None):
    ids = np.arange(len(difference))
    before = np.where(difference == 0, ids % 2 == 0, difference < 0)
    after = np.where(difference == 0, before, difference > 0)
    columns = {"video_id": video, "task": task}
    return compare_runs(
        RunOutcomes("full", ids, before, **columns), RunOutcomes("cut", ids, after, **columns)
    )


def test_five_losses_have_one_p_value():
    """100 questions, 5 losses: p was 0.062, or 0.031 if two unchanged questions share a video."""
    difference, alone = np.repeat([-1, 0], [5, 95]), np.arange(100)
    shared = np.where(alone == 99, 98, alone)
    tasks = alone % 2
    found = [compared(difference, video, tasks) for video in (alone, shared)]
    assert found[0].test.p_value == pytest.approx(found[1].test.p_value, rel=1e-9)
    assert 0.02 < found[0].test.p_value < 0.05 and found[0].difference.high < 0


def test_one_flip_has_one_p_value_alone_clustered_and_as_macro_average():
    """One flip was p = 0.5 by sign flips, 1.0 by McNemar's test and as macro average."""
    difference = np.repeat([-1, 0], [1, 99])
    ids = np.arange(100)
    p_values = [paired_difference(difference).p_value()]
    for video in (ids, ids // 2):
        found = compared(difference, video, ids % 4 // 2)
        assert found.strata is not None
        p_values += [found.test.p_value, found.strata.macro.test.p_value]
    assert p_values == pytest.approx([p_values[0]] * 5, rel=1e-9)


@pytest.mark.parametrize("shared", [1, 2, 5, 10])
def test_unchanged_questions_may_share_videos(shared):
    difference, ids = np.repeat([-1, 0], [5, 95]), np.arange(100)
    alone = paired_difference(difference, ids).p_value()
    together = paired_difference(difference, np.where(ids < 5, ids, 5 + (ids - 5) // shared))
    assert together.p_value() == pytest.approx(alone, rel=1e-9)


def test_one_video_with_nearly_all_questions_shows_little():
    difference = np.repeat([-1, 0], [5, 95])
    found = paired_difference(difference, np.minimum(np.arange(100), 5))
    assert found.p_value() > 0.05 and found.interval().high - found.interval().low > 1


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=2, max_size=12), st.data())
def test_one_to_four_flips_anywhere_are_never_certainty(sizes, data):
    """A loss and a gain in one video of 20 gave "0.0, CI 0.0…0.0, non-inferior" for a while."""
    cluster = np.repeat(np.arange(len(sizes)), sizes)
    at = data.draw(st.lists(st.integers(0, len(cluster) - 1), min_size=1, max_size=4, unique=True))
    difference = np.zeros(len(cluster), int)
    difference[at] = data.draw(
        st.lists(st.sampled_from([-1, 1]), min_size=len(at), max_size=len(at))
    )
    weight = data.draw(st.lists(st.sampled_from([0.2, 1.0, 4.0]), min_size=len(at), max_size=9))
    weights = np.resize(weight, len(cluster))
    for used in (None, weights * len(cluster) / weights.sum()):
        found = paired_difference(difference, cluster, used)
        interval = found.interval()
        assert interval.low <= found.estimate <= interval.high
        assert interval.high - interval.low > 0.5 / len(cluster)
        for value in (0.0, -0.02):
            inside = interval.low <= value <= interval.high
            assert inside == (found.p_value(value) >= 0.05)
    assert paired_difference(difference, cluster).p_value() > (0.01 if len(at) > 1 else 0.2)


def test_gains_and_losses_that_cancel_within_videos_are_no_certainty():
    difference = np.repeat([1, -1, 0], [1, 1, 38])
    found = paired_difference(difference, np.arange(40) // 2).interval()
    plain = paired_difference(difference).interval()
    assert found.low <= plain.low and found.high >= plain.high
    half = accuracy(np.arange(60) % 2 == 0, np.arange(60) // 2)
    alone = accuracy(np.arange(60) % 2 == 0)
    assert (half.low, half.high) == pytest.approx((alone.low, alone.high), abs=1e-9)


def test_five_changed_videos_can_be_significant():
    """The page said that fewer than six changed videos can never reach 0.05."""
    difference = np.repeat([-1, 0], [5, 95])
    assert paired_difference(difference, np.arange(100)).p_value() < 0.05
    by_video = np.repeat([-1, 0], [10, 90])
    assert paired_difference(by_video, np.arange(100) // 2).p_value() < 0.05


def test_identical_answers_of_a_video_count_once():
    once = np.repeat([1, -1, 0], [4, 12, 60])
    video = np.repeat(np.arange(76), 5)
    copied, alone = paired_difference(np.repeat(once, 5), video), paired_difference(once)
    for value in (0.0, -0.02, 0.1):
        assert copied.score(value) == pytest.approx(alone.score(value), rel=1e-9)


def test_macro_interval_is_the_plain_one_where_subtasks_have_one_size():
    """With few flips the macro interval was 1.8 times as wide as the micro interval."""
    rng = np.random.default_rng(3)
    difference = rng.choice([-1, 0, 1], 1000, p=[0.01, 0.98, 0.01])
    task, video = np.repeat(np.arange(10), 100), np.arange(1000) // 2
    macro = macro_difference(difference, task, video).interval
    micro = paired_difference(difference, video).interval()
    assert (macro.low, macro.high) == pytest.approx((micro.low, micro.high), abs=1e-9)


def test_macro_interval_shrinks_where_nothing_varies():
    difference = np.zeros(2000, int)
    task = np.repeat(np.arange(10), [20, 380, *[200] * 8])
    difference[400:404] = -1
    found = macro_difference(difference, task)
    micro = paired_difference(difference).interval()
    assert found.interval.high - found.interval.low < 1.35 * (micro.high - micro.low)
    assert found.non_inferiority.verdict == "non-inferior"
    alone = macro_difference(difference, np.zeros(2000, int)).interval
    assert (alone.low, alone.high) == (micro.low, micro.high)


def test_macro_average_counts_every_subtask_the_same():
    task = np.repeat([0, 1], [900, 100])
    difference = np.zeros(1000, int)
    difference[900:930] = 1
    found = macro_difference(difference, task)
    assert found.interval.estimate == pytest.approx(0.15) and found.test.p_value < 0.001
    accurate = macro_accuracy(difference == 1, task)
    assert accurate.estimate == pytest.approx(0.15) and accurate.low > 0


def test_impossible_tables_and_levels_are_refused():
    for counts in ((5, 6, 10), (-1, 2, 10), (0, 0, 0)):
        with pytest.raises(MapflowError, match="not a paired table"):
            PairedDifference.of_counts(*counts)
    with pytest.raises(MapflowError, match="confidence 95"):
        PairedDifference.of_counts(1, 2, 10).interval(confidence=95)

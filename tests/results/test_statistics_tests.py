"""p-values against enumeration, published examples and reference implementations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from mapflow.results.contract.errors import MapflowError
from mapflow.results.statistics import (
    Cells,
    benjamini_hochberg,
    chance_level_test,
    cochran_q,
    count_cells,
    holm,
    homogeneity,
    mantel_haenszel,
    mantel_haenszel_of_tables,
    stratum_differences,
)


def test_cells_count_every_question_once():
    before, after = np.array([1, 1, 0, 0, 1], bool), np.array([1, 0, 1, 0, 0], bool)
    assert count_cells(before, after) == Cells(both=1, lost=2, gained=1, neither=1)
    assert count_cells(before, after).discordance == 0.6


def test_cochran_reproduces_agresti():
    """Three drugs, 46 patients (Agresti, Categorical Data Analysis; SAS PROC FREQ): Q = 8.4706."""
    table = {"FFF": 6, "UFF": 2, "FFU": 16, "UFU": 4, "FUF": 2, "UUF": 6, "FUU": 4, "UUU": 6}
    answers = [
        [letter == "F" for letter in row] for row, count in table.items() for _ in range(count)
    ]
    found = cochran_q(np.array(answers).T)
    assert round(found.statistic, 4) == 8.4706 and round(found.p_value, 4) == 0.0145


def test_clustered_comparison_of_two_runs_is_a_t_test_of_video_totals():
    rng = np.random.default_rng(2)
    cluster, correct = np.repeat(np.arange(30), 6), rng.random((2, 180)) < 0.6
    totals = np.bincount(cluster, correct[1].astype(int) - correct[0])
    reference = stats.ttest_1samp(totals, 0.0)
    found = cochran_q(correct, cluster)
    assert found.p_value == pytest.approx(reference.pvalue, abs=1e-10)
    assert found.statistic == pytest.approx(reference.statistic**2, abs=1e-8)


def test_clustered_comparison_of_three_runs_is_hotelling():
    rng = np.random.default_rng(3)
    cluster, correct = np.repeat(np.arange(40), 5), rng.random((3, 200)) < 0.5
    totals = np.stack(
        [np.bincount(cluster, correct[k].astype(int) - correct[0]) for k in (1, 2)], axis=1
    )
    t_squared = 40 * totals.mean(0) @ np.linalg.inv(np.cov(totals.T)) @ totals.mean(0)
    reference = stats.f.sf(t_squared * (40 - 2) / (2 * 39), 2, 38)
    assert cochran_q(correct, cluster).p_value == pytest.approx(reference, abs=1e-10)
    copied = np.concatenate([correct, correct[2:]])
    assert cochran_q(copied, cluster).p_value == pytest.approx(reference, abs=1e-8), (
        "a copy adds nothing"
    )


def test_runs_that_agree_do_not_differ():
    same = np.tile([True, False, True], (3, 1))
    assert cochran_q(same).p_value == 1.0
    with pytest.raises(MapflowError, match="at least two runs"):
        cochran_q(same[:1])
    with pytest.raises(MapflowError, match="too few"):
        cochran_q(
            np.array([[1, 0, 1, 0], [0, 0, 1, 1], [1, 1, 1, 1]], bool), np.array([0, 0, 1, 1])
        )


def test_mantel_haenszel_reproduces_liu_1992():
    """Smoking and lung cancer in eight Chinese cities (Liu 1992; Agresti 1996, Table 3.3)."""
    cells = [
        (126, 100, 35, 61), (908, 688, 497, 807), (913, 747, 336, 598), (235, 172, 58, 121),
        (402, 308, 121, 215), (182, 156, 72, 98), (60, 99, 11, 43), (104, 89, 21, 36),
    ]  # fmt: skip
    found = mantel_haenszel_of_tables(np.array(cells, float).T.reshape(2, 2, 8))
    assert round(found.test.statistic, 3) == 280.138
    assert found.odds_ratio is not None and round(found.odds_ratio, 3) == 2.174


def test_mantel_haenszel_agrees_with_its_formulas():
    rng = np.random.default_rng(4)
    task, before = rng.integers(0, 5, 600), rng.random(600) < 0.5
    after = rng.random(600) < 0.6
    found = mantel_haenszel(before, after, task)
    above = below = excess = variance = 0.0
    for t in range(5):
        rows = task == t
        n, a, c = rows.sum(), after[rows].sum(), before[rows].sum()
        above += a * (n - c) / (2 * n)
        below += (n - a) * c / (2 * n)
        excess += a - (a + c) / 2
        variance += n * n * (a + c) * (2 * n - a - c) / ((2 * n) ** 2 * (2 * n - 1))
    assert found.odds_ratio == pytest.approx(above / below, abs=1e-10)
    assert found.test.statistic == pytest.approx(excess**2 / variance, abs=1e-10)


def test_mantel_haenszel_of_one_sided_subtasks_is_never_nan():
    everything, nothing, task = np.ones(20, bool), np.zeros(20, bool), np.repeat([0, 1], 10)
    same = mantel_haenszel(everything, everything, task)
    assert same.odds_ratio is None and same.test.p_value == 1.0
    opposite = mantel_haenszel(nothing, everything, task)
    assert opposite.odds_ratio is None and opposite.test.p_value < 1e-6


def test_strata_are_tested_one_by_one_and_corrected():
    rng = np.random.default_rng(5)
    task, before = np.repeat([0, 1, 2], 200), rng.random(600) < 0.5
    after = before.copy()
    after[:40] = False
    found = stratum_differences(before, after, task, ["count", "direction", "order"])
    assert [s.task for s in found] == ["count", "direction", "order"]
    lost = int(before[:40].sum())
    assert found[0].cells.lost == lost and found[1].cells.lost == 0
    assert 0 < found[0].test.p_value < 0.001 and found[1].test.p_value == 1.0
    assert found[0].p_holm == pytest.approx(3 * found[0].test.p_value) and found[1].p_holm == 1.0


def test_homogeneity_sees_a_loss_in_one_subtask_only():
    rng = np.random.default_rng(6)
    task, cluster = np.repeat(np.arange(4), 150), np.repeat(np.arange(200), 3)
    same = rng.choice([-1, -1, 0, 0, 0, 1], 600)
    assert homogeneity(same, task, cluster).p_value > 0.05
    differing = same.copy()
    differing[task == 2] = rng.choice([0, 0, 1], 150)
    assert homogeneity(differing, task, cluster).p_value < 0.001
    assert homogeneity(np.zeros(600, int), task, cluster).p_value == 1.0


def test_homogeneity_is_calibrated():
    rng = np.random.default_rng(7)
    task, cluster = np.repeat(np.arange(4), 100), np.repeat(np.arange(80), 5)
    hits = 0
    for draw in range(400):
        video = rng.choice([-1, 0, 0, 1], 80)[cluster]
        difference = np.where(rng.random(400) < 0.5, video, rng.choice([-1, 0, 0, 1], 400))
        hits += homogeneity(difference, task, cluster, draws=499, seed=draw).p_value < 0.05
    assert 2 <= 100 * hits / 400 <= 8


def guessing(options: np.ndarray) -> np.ndarray:
    """Distribution of the number right by guessing, one question at a time."""
    probability = np.ones(1)
    for k in options:
        probability = np.convolve(probability, [1 - 1 / k, 1 / k])
    return probability


@settings(max_examples=50)
@given(st.lists(st.integers(2, 7), min_size=1, max_size=60), st.floats(0, 1))
def test_chance_level_agrees_with_one_coin_at_a_time(options, share):
    right = round(share * len(options))
    found = chance_level_test(np.arange(len(options)) < right, np.array(options))
    probability = guessing(np.array(options))
    assert found.p_above == pytest.approx(probability[right:].sum(), abs=1e-12)
    assert found.p_below == pytest.approx(probability[: right + 1].sum(), abs=1e-12)
    assert found.chance == pytest.approx(np.mean([1 / k for k in options]))


def test_chance_level_of_equal_options_is_binomial():
    found = chance_level_test(np.arange(400) < 120, np.full(400, 4))
    assert found.p_above == pytest.approx(
        stats.binomtest(120, 400, 0.25, alternative="greater").pvalue, abs=1e-12
    )
    assert chance_level_test(np.zeros(400, bool), np.full(400, 4)).p_below < 1e-40, (
        "a format collapse"
    )


def test_chance_refuses_open_questions():
    with pytest.raises(MapflowError, match="open questions"):
        chance_level_test(np.ones(2, bool), np.array([4, 0]))


def test_corrections_reproduce_benjamini_and_hochberg_1995():
    """Benjamini & Hochberg (1995), section 4.1: of 15 p-values Holm rejects 3, theirs 4."""
    p_values = np.array(
        [.0001, .0004, .0019, .0095, .0201, .0278, .0298, .0344, .0459, .3240, .4262, .5719,
         .6528, .7590, 1.0]
    )  # fmt: skip
    assert (holm(p_values) <= 0.05).sum() == 3
    assert (benjamini_hochberg(p_values) <= 0.05).sum() == 4


@settings(max_examples=8)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_corrections_agree_with_statsmodels(values):
    p_values = np.array(values)
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1], abs=1e-12)
    assert benjamini_hochberg(p_values) == pytest.approx(
        multipletests(p_values, method="fdr_bh")[1], abs=1e-12
    )


def test_no_tests_need_no_correction():
    assert len(holm(np.empty(0))) == len(benjamini_hochberg(np.empty(0))) == 0


def test_corrections_refuse_what_is_no_probability():
    with pytest.raises(MapflowError, match="nan"):
        holm(np.array([0.1, np.nan]))

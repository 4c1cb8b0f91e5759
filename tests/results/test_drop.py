"""Accuracy drop among the questions that the baseline answers right, in every comparison."""

import csv
import json

import numpy as np
import pytest

from mapflow.results.runs.run import read_runs
from mapflow.results.statistics import accuracy, accuracy_drop, seed_condition, seeds_drop
from mapflow.results.tables.ablation import ablation_table
from mapflow.results.tables.comparison import (
    compare_with_baseline,
    comparison_table,
)
from mapflow.results.tables.formats import render
from mapflow.results.tables.subtasks import subtask_table
from tests.results.run_folders import answers, write_run

FULL = [1, 1, 1, 1, 1, 1, 0, 0, 0, 0]
CUT = [1, 1, 0, 0, 1, 0, 1, 1, 0, 0]  # 3 of 6 right ones lost; 2 gained, so −1 of 10 in all


def two_subtasks(folder):
    one, two = "tvbench/one/{:04d}", "tvbench/two/{:04d}"
    records = [
        *answers("full", FULL, question_id=one, task="mapflow_tvbench_one"),
        *answers("full", [1, 0], question_id=two, task="mapflow_tvbench_two", video_id="w{}"),
        *answers("cut", CUT, question_id=one, task="mapflow_tvbench_one"),
        *answers("cut", [1, 1], question_id=two, task="mapflow_tvbench_two", video_id="w{}"),
    ]
    return read_runs(write_run(folder, records))


def test_the_drop_counts_what_the_baseline_answers_right():
    full, cut, video = np.array(FULL, bool), np.array(CUT, bool), np.arange(10) // 2
    found = accuracy_drop(full, cut, video)
    assert found is not None and found.estimate == pytest.approx(-0.5)
    kept = accuracy(cut[full], video[full])
    assert (found.low, found.high) == pytest.approx((kept.low - 1, kept.high - 1))
    assert accuracy_drop(~full, full, video).estimate == -1
    assert accuracy_drop(np.zeros(10, bool), cut) is None


def test_every_comparison_has_a_column_and_a_subtask_its_own(tmp_path):
    pairs = compare_with_baseline(*_split(two_subtasks(tmp_path)))
    table = comparison_table(pairs)
    (row,) = table.rows
    assert (row["n_right"], row["drop"]) == (7, pytest.approx(-3 / 7))
    assert row["drop_low"] < row["drop"] < row["drop_high"] < 0
    assert "drop among right" in render([table], "terminal")
    assert "-42.9 " in render([table], "terminal").replace("−", "-")
    lines = [line for line in render([table], "csv").splitlines() if line and line[0] != "#"]
    from_csv, *_ = csv.DictReader(lines)
    assert float(from_csv["drop"]) == pytest.approx(-3 / 7)
    (from_json,) = json.loads(render([table], "json"))[0]["rows"]
    assert from_json["n_right"] == 7
    by_task = {one["subtask"]: one for one in subtask_table(pairs).rows}
    assert by_task["mapflow_tvbench_one"]["drop"] == pytest.approx(-0.5)
    assert by_task["mapflow_tvbench_two"]["drop"] == 0
    assert by_task["mapflow_tvbench_two"]["n_right"] == 1


def test_without_a_right_answer_there_is_no_drop(tmp_path):
    runs = read_runs(write_run(tmp_path, answers("full", [0] * 4) + answers("cut", [0, 1, 0, 0])))
    table = comparison_table(compare_with_baseline(*_split(runs)))
    assert table.rows[0]["drop"] is None and table.rows[0]["n_right"] == 0
    assert "–" in render([table], "terminal")


def test_several_seeds_are_one_condition_over_the_right_questions(tmp_path):
    rng = np.random.default_rng(3)
    full = [1] * 60 + [0] * 40
    seeds = [rng.permutation(full).tolist() for _ in range(3)]
    records = answers("full", full)
    for seed, correct in enumerate(seeds):
        records += answers(f"random:seed={seed}", correct, seed=seed)
    baseline, *treatments = read_runs(write_run(tmp_path, records))
    (row,) = ablation_table(baseline, treatments).rows
    kept = np.array(seeds, bool)[:, :60]
    expected = seed_condition(np.ones(60, bool), kept, np.arange(60) // 2).accuracy
    assert row["drop"] == pytest.approx(kept.mean() - 1)
    limits = (expected.low - 1, expected.high - 1)
    assert (row["drop_low"], row["drop_high"]) == pytest.approx(limits)


@pytest.mark.parametrize("lost", [(0, 0), (1, 1), (10, 20), (50, 50), (0, 50), (0, 0, 0, 25)])
def test_the_drop_of_several_seeds_is_never_a_gain_and_that_of_one_run_if_they_agree(lost):
    """Two seeds that lose nothing had limits of -25.9 and +25.9 points; 10 and 20, of +97.9."""
    right, cluster = np.ones(50, bool), np.arange(50) // 2
    seeds = np.stack([np.arange(50) >= n for n in lost])
    found = seeds_drop(right, seeds, cluster)
    assert found is not None
    assert -1 <= found.low <= found.estimate <= found.high <= 0
    assert found.estimate == pytest.approx(-np.mean(lost) / 50)
    if len(set(lost)) == 1:
        alone = accuracy_drop(right, seeds[0], cluster)
        assert alone is not None
        assert (found.low, found.high) == pytest.approx((alone.low, alone.high))
    assert seeds_drop(~right, seeds, cluster) is None


def _split(runs):
    baseline, *treatments = runs
    return baseline, treatments

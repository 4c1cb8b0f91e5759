"""A grid against its baseline: seeds are one condition, and the numbers are the statistics
library's."""

import numpy as np
import pytest

from mapflow.results.contract.errors import MapflowError
from mapflow.results.runs.run import read_runs
from mapflow.results.statistics import PairedDifference, holm, seed_condition
from mapflow.results.tables.ablation import ablation_table, condition_of
from tests.results.run_folders import answers, write_run

RNG = np.random.default_rng(5)
FULL = [1] * 70 + [0] * 30
SEEDS = [RNG.permutation([1] * (40 + k) + [0] * (60 - k)).tolist() for k in range(3)]


def a_grid(folder, **changes):
    records = answers("full", FULL, **changes) + answers("effective", [*FULL[:-2], 1, 1], **changes)
    for seed, correct in enumerate(SEEDS):
        records += answers(f"random:seed={seed}", correct, seed=seed, **changes)
    return read_runs(write_run(folder, records))


def test_seeds_are_one_condition_with_the_librarys_interval(tmp_path):
    baseline, *treatments = a_grid(tmp_path)
    table = ablation_table(baseline, treatments)
    assert [(row["condition"], row["seeds"]) for row in table.rows] == [
        ("effective", []),
        ("random", [0, 1, 2]),
    ]
    row = table.rows[1]
    expected = seed_condition(np.array(FULL, bool), np.array(SEEDS, bool), np.arange(100) // 2)
    assert row["accuracy"] == pytest.approx((40 + 41 + 42) / 300)
    assert row["difference"] == pytest.approx(expected.difference.estimate)
    limits = (expected.difference.low, expected.difference.high)
    assert (row["difference_low"], row["difference_high"]) == pytest.approx(limits, rel=1e-12)
    assert row["between_seeds"] == pytest.approx(expected.between_seeds)
    assert row["verdict"] == "inferior" and row["n"] == 100
    lost = [sum(b > a for b, a in zip(FULL, seed, strict=True)) for seed in SEEDS]
    gained = [sum(b < a for b, a in zip(FULL, seed, strict=True)) for seed in SEEDS]
    assert (row["lost"], row["gained"]) == pytest.approx((sum(lost) / 3, sum(gained) / 3))


def test_a_condition_of_one_run_is_compared_as_such_and_p_values_are_corrected_together(tmp_path):
    baseline, *treatments = a_grid(tmp_path, video_id="one/{}.mp4")
    rows = ablation_table(baseline, treatments).rows
    assert (rows[0]["lost"], rows[0]["gained"]) == (0, 2)
    assert rows[0]["p"] == PairedDifference.of_counts(2, 0, 100).p_value()
    assert [row["p_holm"] for row in rows] == holm(np.array([row["p"] for row in rows])).tolist()


@pytest.mark.parametrize(
    ("intervention", "seed", "condition"),
    [
        ("full", None, "full"),
        ("random:seed=0", 0, "random"),
        ("random:ratio=0.58,seed=3", 3, "random:ratio=0.58"),
        ("random:seed=12+video->last@1-4", 12, "random+video->last@1-4"),
        ("named", 3, "named"),
        ("random:seed=31", 3, "random:seed=31"),
    ],
)
def test_a_condition_is_the_intervention_without_its_seed(tmp_path, intervention, seed, condition):
    (run,) = read_runs(write_run(tmp_path, answers(intervention, [1], seed=seed)))
    assert condition_of(run) == condition


def test_one_seed_twice_is_refused(tmp_path):
    baseline, *treatments = a_grid(tmp_path)
    with pytest.raises(MapflowError, match="seed 2 of condition 'random' is there more than once"):
        ablation_table(baseline, [*treatments, treatments[-1]])
    with pytest.raises(MapflowError, match="condition 'effective' is there more than once"):
        ablation_table(baseline, [*treatments, treatments[0]])


def test_nothing_to_compare_is_refused(tmp_path):
    baseline, *_ = a_grid(tmp_path)
    with pytest.raises(MapflowError, match="nothing to compare"):
        ablation_table(baseline, [])

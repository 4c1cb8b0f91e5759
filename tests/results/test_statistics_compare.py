"""The whole comparison: method choice, sentence, bad input, determinism, size."""

import dataclasses
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mapflow.results.contract.errors import MapflowError
from mapflow.results.statistics import (
    Cells,
    RunOutcomes,
    compare_runs,
    paired_difference,
    points,
    sentence,
)


def runs(n=600, flips=0.1, per_video=3, tasks=3, seed=0):
    rng = np.random.default_rng(seed)
    ids = [f"q{i}" for i in range(n)]
    video = [f"v{i // per_video}" for i in range(n)] if per_video else None
    task = [f"t{i // per_video % tasks}" for i in range(n)] if tasks else None
    full = rng.random(n) < 0.55
    other = np.where(rng.random(n) < flips, ~full, full)
    return RunOutcomes("full", ids, full, video, task), RunOutcomes(
        "effective", ids, other, video, task
    )


def numbers(value):
    """Every float anywhere in a result."""
    if dataclasses.is_dataclass(value):
        value = [getattr(value, field.name) for field in dataclasses.fields(value)]
    if isinstance(value, (tuple, list)):
        for part in value:
            yield from numbers(part)
    elif isinstance(value, float):
        yield value


def test_shared_videos_choose_the_clustered_methods():
    full, effective = runs()
    found = compare_runs(full, effective)
    assert found.n == 600 and found.n_clusters == 200
    difference = np.asarray(effective.correct, int) - np.asarray(full.correct, int)
    assert found.difference.estimate == difference.mean()
    counted = paired_difference(difference, np.arange(600) // 3)
    assert found.test == counted.test() and found.difference == counted.interval()
    assert found.bootstrap is not None
    assert found.strata is not None and len(found.strata.differences) == 3
    assert sum(s.cells.n for s in found.strata.differences) == 600
    macro = np.mean([s.difference.estimate for s in found.strata.differences])
    assert found.strata.macro.interval.estimate == pytest.approx(macro)


def test_one_question_a_video_is_the_same_test_with_clusters_of_one():
    full, effective = runs(per_video=1)
    found = compare_runs(full, effective)
    assert found.bootstrap is None and found.design_effect == pytest.approx(1.0)
    without = compare_runs(*(replace(run, video_id=None) for run in (full, effective)))
    assert (found.test, found.difference) == (without.test, without.difference)
    assert found.difference.method == "score test" and found.baseline_accuracy.method == "Wilson"


def test_the_order_of_records_changes_no_bit():
    full, effective = runs()
    order = np.random.default_rng(1).permutation(600)
    columns = (np.asarray(effective.question_id)[order], np.asarray(effective.correct)[order])
    shuffled = RunOutcomes(
        "effective",
        *columns,
        np.asarray(effective.video_id)[order],
        np.asarray(effective.task)[order],
    )
    assert compare_runs(full, effective) == compare_runs(full, shuffled)


def test_swapping_the_runs_mirrors_the_difference():
    full, effective = runs()
    there, back = compare_runs(full, effective), compare_runs(effective, full)
    assert back.difference.estimate == -there.difference.estimate
    assert (back.difference.low, back.difference.high) == pytest.approx(
        (-there.difference.high, -there.difference.low), abs=1e-10
    )
    assert back.test.p_value == pytest.approx(there.test.p_value, abs=1e-12)
    assert (back.cells.lost, back.cells.gained) == (there.cells.gained, there.cells.lost)


def test_the_sentence():
    lost, gained = 127, 119
    before = np.repeat([True, False, True, False], [lost, gained, 1200, 1079])
    after = np.repeat([False, True, True, False], [lost, gained, 1200, 1079])
    ids = np.arange(2525)
    found = compare_runs(RunOutcomes("full", ids, before), RunOutcomes("effective", ids, after))
    assert found.cells == Cells(1200, 127, 119, 1079)
    assert sentence(found, "TVBench") == (
        "effective is non-inferior to full on TVBench: −0.3 points, 95 % CI −1.5…+0.9, margin 2;"
        " 127 lost, 119 gained"
    )
    flipped = sentence(
        compare_runs(RunOutcomes("full", ids, before), RunOutcomes("random", ids, ~before))
    )
    assert flipped.startswith(
        "random is significantly worse than full; whether by more than a margin of 2 points is"
        " inconclusive: −5.1 points, 95 % CI"
    )
    wrong = sentence(
        compare_runs(
            RunOutcomes("full", ids, before), RunOutcomes("random", ids, before & (ids < 900))
        )
    )
    assert wrong.startswith(
        "random is significantly worse than full, and inferior at a margin of 2 points: −"
    )
    assert wrong.endswith("lost, 0 gained")
    assert [points(x) for x in (0.0, -0.0004, 0.0123, -0.4)] == ["0.0", "0.0", "+1.2", "−40.0"]


@pytest.mark.parametrize("per_video", [1, 3])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("all", "all"),
        ("none", "none"),
        ("all", "none"),
        ("none", "all"),
        ("mixed", "mixed"),
        ("mixed", "one flip"),
    ],
)
def test_extreme_runs_have_an_answer_without_nan(before, after, per_video):
    mixed = np.arange(60) % 2 == 0
    columns = {
        "all": np.ones(60, bool),
        "none": np.zeros(60, bool),
        "mixed": mixed,
        "one flip": mixed.copy(),
    }
    columns["one flip"][0] = False
    ids, video = np.arange(60), np.arange(60) // per_video
    task = np.repeat([0, 1, 2], 20) if per_video == 1 else video % 3
    found = compare_runs(
        RunOutcomes("a", ids, columns[before], video, task),
        RunOutcomes("b", ids, columns[after], video, task),
    )
    for number in numbers(found):
        assert math.isfinite(number)
    assert 0 < found.test.p_value <= 1
    assert found.difference.low <= found.difference.estimate <= found.difference.high
    assert found.difference.low < found.difference.high, "certainty is never claimed"
    if before == after:
        assert found.test.p_value == 1.0 and "No question changed" in " ".join(found.notes)
    if {before, after} == {"all", "none"}:
        assert found.test.p_value < 1e-4


def test_a_single_question_has_an_answer():
    found = compare_runs(RunOutcomes("a", ["q"], [1]), RunOutcomes("b", ["q"], [0]))
    assert found.difference.estimate == -1.0 and found.test.p_value > 0.3


def test_one_video_is_refused_and_few_are_noted():
    ids = np.arange(30)
    correct, other = ids % 2 == 0, ids % 3 == 0
    one = np.zeros(30, int)
    with pytest.raises(MapflowError, match="one video") as refusal:
        compare_runs(RunOutcomes("a", ids, correct, one), RunOutcomes("b", ids, other, one))
    assert "\n" not in str(refusal.value)
    few = ids // 6
    found = compare_runs(RunOutcomes("a", ids, correct, few), RunOutcomes("b", ids, other, few))
    assert any("Only 5 videos" in note for note in found.notes)


def test_intersecting_counts_what_was_left_out():
    full, effective = runs(n=300)
    half = RunOutcomes(
        "effective", effective.question_id[:200], effective.correct[:200], effective.video_id[:200]
    )
    with pytest.raises(MapflowError, match="--intersect"):
        compare_runs(full, half)
    found = compare_runs(full, half, intersect=True)
    assert found.n == 200 and found.left_out == (100, 0)
    assert "100 of full" in found.notes[0]


BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "compare_million.py"


@pytest.mark.slow
def test_a_million_records_fit_in_two_gigabytes():
    done = subprocess.run([sys.executable, BENCHMARK], capture_output=True, text=True, check=True)
    measured = json.loads(done.stdout)
    assert measured["questions"] == 1_000_000
    assert measured["peak_gib"] < 2

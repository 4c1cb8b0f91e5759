"""`mapflow power` says what the statistics say, and refuses what is no plan."""

import json
import math

import numpy as np
import pytest

from mapflow.harness.cli.main import main
from mapflow.results.runs.run import read_runs
from mapflow.results.statistics import (
    detectable_difference,
    kish_design_effect,
    power_of_non_inferiority,
    questions_for_non_inferiority,
    questions_needed,
)
from mapflow.results.tables.comparison import compare_with_baseline
from tests.results.run_folders import answers, write_run

FULL = [1] * 300 + [0] * 100
CUT = [0] * 12 + [1] * 288 + [1] * 8 + [0] * 92


@pytest.fixture
def folder(tmp_path):
    return write_run(tmp_path / "run", answers("full", FULL) + answers("cut", CUT))


def rows(capsys, *words):
    assert main(["power", *map(str, words), "--format", "json"]) == 0
    (table,) = json.loads(capsys.readouterr().out)
    return table["rows"]


def test_a_finished_comparison(folder, capsys):
    (row,) = rows(capsys, folder, "--difference", "3", "--power", "90")
    full, cut = read_runs(folder)
    found = compare_with_baseline(full, [cut])[0].comparison
    effect = found.design_effect
    assert (row["n"], row["videos"], row["flips"]) == (400, 200, 20 / 400) and effect > 1
    assert row["design_effect"] == effect
    expected = detectable_difference(400, 0.05, power=0.9, design_effect=effect)
    assert row["detectable"] == pytest.approx(expected)
    assert row["power_non_inferior"] == pytest.approx(
        power_of_non_inferiority(400, 0.05, design_effect=effect)
    )
    needed = questions_needed(0.05, 0.03, power=0.9, design_effect=effect)
    assert row["questions_difference"] == math.ceil(needed)
    assert row["videos_difference"] == math.ceil(needed / 2)
    needed = questions_for_non_inferiority(0.05, power=0.9, design_effect=effect)
    assert row["questions_non_inferior"] == math.ceil(needed)


def test_compare_and_power_name_the_same_detectable_difference(folder, capsys):
    (row,) = rows(capsys, folder)
    main(["compare", str(folder)])
    said = capsys.readouterr().out
    assert f"A change of {100 * row['detectable']:.1f} points would have been found" in said


def test_a_run_alone_and_a_plan_without_runs_take_assumptions(folder, capsys):
    (row,) = rows(capsys, f"{folder}:full", "--flips", "10", "--icc", "0.4")
    assert row["design_effect"] == kish_design_effect(np.full(200, 2), 0.4) == pytest.approx(1.4)
    (row,) = rows(capsys, "--flips", "10", "--questions", "400", "--per-video", "2", "--icc", "0.4")
    assert (row["videos"], row["design_effect"]) == (200, pytest.approx(1.4))
    (plan,) = rows(capsys, "--flips", "10", "--margin", "1")
    assert plan["n"] is None and plan["detectable"] is None
    assert plan["questions_non_inferior"] == math.ceil(
        questions_for_non_inferiority(0.1, margin=0.01)
    )
    (given,) = rows(capsys, "--flips", "10", "--design-effect", "2", "--margin", "1")
    needed = plan["questions_difference"]
    assert given["questions_difference"] == pytest.approx(2 * needed, abs=2)


def test_runs_without_a_flip_say_what_is_unknown(tmp_path, capsys):
    run = write_run(tmp_path / "same", answers("full", [1, 0] * 20) + answers("x", [1, 0] * 20))
    assert main(["power", str(run)]) == 0
    said = capsys.readouterr().out
    assert "no question flipped" in said and "points is found in 40 questions of 20 videos" in said
    one = write_run(tmp_path / "one", answers("full", [1]) + answers("x", [0]))
    assert main(["power", str(one)]) == 0
    assert "no difference is found in 1 question with" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "name runs, or plan without them"),
        (["{0}/absent"], "does not exist"),
        (["{0}/manifest.json"], "not the folder of a run"),
        (["{0}:full"], "is one run alone: name a second one, or assume"),
        (["{0}", "--flips", "1"], "--flips 1 is below the difference"),
        (["--flips", "nan"], "--flips nan must lie between 0 and 100"),
        (["--flips", "10", "--power", "100"], "--power 100 must lie"),
        (["--flips", "10", "--icc", "-0.1"], "--icc -0.1 must lie"),
        (["--flips", "10", "--questions", "0"], "must be a whole number of at least 1"),
        (["--flips", "10", "--questions", "3", "--per-video", "9"], "is more than --questions 3"),
        (["--flips", "10", "--design-effect", "0"], "--design-effect 0 must lie"),
        (["{0}", "--questions", "9"], "--questions is of a plan without runs"),
        (["{0}", "--baseline", "absent"], "no intervention 'absent'"),
    ],
)
def test_what_is_no_plan_is_refused_in_one_line(folder, capsys, words, said):
    assert main(["power", *(word.format(folder) for word in words)]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_one_video_alone_and_an_empty_run_are_refused(tmp_path, capsys):
    one = answers("full", [1, 0, 1], video_id="v") + answers("x", [1, 1, 0], video_id="v")
    assert main(["power", str(write_run(tmp_path / "video", one))]) == 2
    assert "all 3 questions are about one video" in capsys.readouterr().err
    assert main(["power", str(write_run(tmp_path / "empty", []))]) == 2
    assert "holds no answers yet" in capsys.readouterr().err
    failed = write_run(tmp_path / "failed", answers("full", [None, None]))
    assert main(["power", str(failed), "--flips", "10"]) == 2
    assert "has no answered question" in capsys.readouterr().err

"""The leaderboard's numbers against hand counts and the statistics; ties are ties; the paper's
rows are as printed."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mapflow.results.contract.errors import MapflowError
from mapflow.results.runs.run import read_runs
from mapflow.results.statistics import accuracy
from mapflow.results.tables.formats import FORMATS, render
from mapflow.results.tables.leaderboard import leaderboard, letter_display
from mapflow.results.tables.published import published_for
from mapflow.results.tables.summary import summarize
from tests.results.records import a_record
from tests.results.run_folders import answers, write_run

GOOD, ALSO_GOOD, BAD = [1] * 60 + [0] * 20, [1] * 59 + [0] * 21, [0] * 60 + [1] * 20


def board(folder, *records, identity=None):
    return leaderboard(
        read_runs(
            write_run(folder, [r for own in records for r in own], identity=identity or {}),
            {"tvbench": "TVBench"},
        )
    )


def test_a_row_holds_what_was_counted(tmp_path):
    invalid = answers("full", [*GOOD[:-2], None, None])
    invalid[70] = type(invalid[70])(**{**vars(invalid[70]), "valid": False})
    row = board(tmp_path, invalid).rows[0]
    assert (row["n"], row["errors"]) == (78, 2)
    assert row["micro"] == pytest.approx(60 / 78) and row["invalid"] == pytest.approx(1 / 78)
    assert row["edges"] == pytest.approx(10 / 40) and row["chance"] == pytest.approx(1 / 4)
    expected = accuracy(np.array(GOOD[:-2], dtype=bool), np.arange(78) // 2)
    assert (row["low"], row["high"]) == pytest.approx((expected.low, expected.high), rel=1e-12)
    assert row["p_chance"] < 1e-10


def test_macro_averages_subtasks(tmp_path):
    one = answers("full", [1] * 30 + [0] * 10)
    two = answers(
        "full", [1, 0, 0, 0], task="t_two", question_id="tvbench/two/{:04d}", video_id="two/{}"
    )
    row = board(tmp_path, one, two).rows[0]
    assert row["macro"] == pytest.approx((0.75 + 0.25) / 2) and row["micro"] == pytest.approx(
        31 / 44
    )


def test_ties_share_a_letter_and_a_worse_run_has_another(tmp_path):
    rows = board(
        tmp_path, answers("full", GOOD), answers("effective", ALSO_GOOD), answers("random", BAD)
    ).rows
    ours = [(row["intervention"], row["ties"]) for row in rows if "ties" in row]
    assert ours == [("full", "a"), ("effective", "a"), ("random", "b")]


def test_ties_are_corrected_for_the_number_of_pairs(tmp_path):
    apart = {"video_id": "one/{}.mp4"}
    best, worst = answers("full", [1] * 40, **apart), answers("random", [0] * 6 + [1] * 34, **apart)
    alone = board(tmp_path / "two", best, worst).rows
    assert [row["ties"] for row in alone if "ties" in row] == [
        "a",
        "b",
    ]  # 6 : 0, p = 0.017
    between = answers("effective", [0] * 3 + [1] * 37, **apart)
    rows = board(tmp_path / "three", best, between, worst).rows
    assert [row["ties"] for row in rows if "ties" in row] == ["a", "ab", "b"]  # three pairs: 0.048


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 6), st.data())
def test_two_runs_share_a_letter_exactly_where_they_do_not_differ(n, data):
    differ = np.zeros((n, n), dtype=bool)
    for i, j in combinations(range(n), 2):
        differ[i, j] = differ[j, i] = data.draw(st.booleans())
    letters = letter_display(differ)
    for i, j in combinations(range(n), 2):
        assert bool(set(letters[i]) & set(letters[j])) == (not differ[i, j])
    assert all(letters)


def test_the_papers_rows_stand_beside_ours_for_their_benchmarks_alone(tmp_path):
    own = answers("full", GOOD)
    motion = answers("full", GOOD, question_id="motion/one/{:04d}")
    rows = board(tmp_path / "unknown", own, motion).rows
    paper = [row for row in rows if row.get("paper")]
    expected = published_for("mapflow_tvbench", table="map-the-flow-3")
    assert expected and {row["benchmark"] for row in paper} == {"TVBench"}
    assert [(row["model"], row["intervention"], row["micro"]) for row in paper] == [
        (row.model, row.intervention, row.accuracy["mapflow_tvbench"] / 100) for row in expected
    ]
    name = expected[0].model
    rows = board(tmp_path / "known", own, identity={"checkpoint": name}).rows
    assert {row["model"] for row in rows if row.get("paper")} == {name}


def test_guessing_is_a_row_where_every_question_has_options(tmp_path):
    two = answers("full", [1, 0], n_options=2, task="t_two", question_id="tvbench/two/{:04d}")
    guessing = [
        r
        for r in board(tmp_path / "a", answers("full", [1, 0, 1, 1]), two).rows
        if r["model"] == "guessing"
    ]
    assert guessing[0]["micro"] == pytest.approx((4 / 4 + 2 / 2) / 6)
    assert guessing[0]["macro"] == pytest.approx((1 / 4 + 1 / 2) / 2)
    rows = board(tmp_path / "b", answers("full", [1, 0, 1, 1], n_options=0)).rows
    assert "guessing" not in [row["model"] for row in rows] and rows[0]["p_chance"] is None


def test_a_right_option_that_is_listed_twice_doubles_the_chance(tmp_path):
    records = answers("full", [1, 1, 0, 0], n_right=2)
    rows = board(tmp_path, records).rows
    assert rows[0]["chance"] == pytest.approx(2 / 4) and rows[0]["p_chance"] == pytest.approx(1.0)
    assert [row["micro"] for row in rows if row["model"] == "guessing"] == pytest.approx([2 / 4])
    (summary,) = summarize(records)
    assert summary.chance_micro == summary.chance_macro == pytest.approx(2 / 4)


def test_runs_over_other_questions_are_compared_over_the_shared_ones_and_it_is_said(tmp_path):
    a = read_runs(write_run(tmp_path / "a", answers("full", GOOD)))
    b = read_runs(write_run(tmp_path / "b", answers("full", GOOD[:70])))
    c = read_runs(write_run(tmp_path / "c", answers("full", GOOD, question_id="tvbench/c/{:04d}")))
    table = leaderboard([*a, *b, *c])
    text = render([table], "terminal")
    assert "compared over the 70 questions they share" in text and "share no question" in text


def test_runs_of_other_protocols_are_warned_of(tmp_path):
    a = read_runs(write_run(tmp_path / "a", answers("full", GOOD)))
    b = read_runs(
        write_run(
            tmp_path / "b", answers("full", BAD, protocol="official"), identity={"checkpoint": "b"}
        )
    )
    assert "tiny full and b full: Warning: protocols differ (paper and official)" in render(
        [leaderboard([*a, *b])], "csv"
    )
    assert "Warning" not in render([leaderboard(a)], "csv")


def test_a_run_without_answers_is_refused(tmp_path):
    with pytest.raises(MapflowError, match="none of the 2 questions could be asked"):
        board(tmp_path, answers("full", [None, None]))


@pytest.mark.parametrize("correct", [[1] * 8, [0] * 8, [1]])
def test_extremes_are_no_crash(tmp_path, correct):
    row = board(tmp_path, answers("full", correct), answers("effective", correct)).rows[0]
    assert 0 <= row["low"] <= row["micro"] <= row["high"] <= 1 and row["ties"] == "a"


def test_one_video_alone_is_no_evidence_of_a_difference(tmp_path):
    rows = board(
        tmp_path,
        answers("full", [1] * 20, video_id="v"),
        answers("effective", [0] * 20, video_id="v"),
    ).rows
    assert [row["ties"] for row in rows if "ties" in row] == ["a", "a"]
    assert rows[0]["high"] - rows[0]["low"] > 0.5


@pytest.mark.parametrize("how", FORMATS)
def test_every_format_prints_it(tmp_path, how):
    assert "effective" in render(
        [board(tmp_path, answers("full", GOOD), answers("effective", BAD))], how
    )


def test_lmms_evals_own_task_of_a_benchmarks_name_is_another_benchmark(tmp_path):
    """Its `tomato` words and scores questions otherwise, so no paper's row stands beside it."""
    theirs = [
        a_record(n, question_id=f"tomato/{n:06d}", task="tomato", protocol="task") for n in range(3)
    ]
    (run,) = read_runs(write_run(tmp_path / "theirs", theirs))
    assert run.benchmark == "tomato (lmms-eval)"
    assert not any(row.get("paper") for row in leaderboard([run]).rows)

"""The leaderboard's numbers against hand counts and the statistics; ties are ties; the paper's
rows are as printed."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mapflow.results.contract.errors import MapflowError
from mapflow.results.runs.run import read_runs
from mapflow.results.statistics import accuracy, seed_condition, seeds_accuracy
from mapflow.results.tables.comparison import compare_with_baseline
from mapflow.results.tables.formats import FORMATS, choose_columns, render
from mapflow.results.tables.leaderboard import leaderboard, letter_display, with_subtasks
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


def two_subtasks(name, first, second, **changes):
    return [
        *answers(name, first, **changes),
        *answers(
            name,
            second,
            **{"task": "t_two", "question_id": "tvbench/two/{:04d}", "video_id": "two/{}"},
            **changes,
        ),
    ]


def test_runs_are_ranked_and_tested_by_the_average_that_is_asked_for(tmp_path):
    many = two_subtasks("many", [1] * 95 + [0] * 5, [0] * 10)
    even = two_subtasks("even", [1] * 70 + [0] * 30, [1] * 10)
    runs = read_runs(write_run(tmp_path, many + even))
    boards = {by: leaderboard(runs, rank_by=by) for by in ("micro", "macro")}
    first = {by: [row["intervention"] for row in board.rows[:2]] for by, board in boards.items()}
    assert first == {"micro": ["many", "even"], "macro": ["even", "many"]}
    (pair,) = compare_with_baseline(runs[0], runs[1:])
    assert pair.comparison.strata is not None and pair.comparison.strata.macro.test.p_value < 0.05
    assert [row["ties"] for row in boards["macro"].rows[:2]] == ["a", "b"]
    assert "in macro accuracy" in render([boards["macro"]], "terminal")
    assert boards["macro"].marks[0].head == "macro [95 % CI]"
    with pytest.raises(MapflowError, match="cannot rank by 'mean'"):
        leaderboard(runs, rank_by="mean")


def test_seeds_of_random_are_one_row_with_their_spread_and_separate_on_request(tmp_path):
    records = two_subtasks("full", GOOD, GOOD[:20])
    for seed, right in enumerate((50, 40, 44)):
        wrong = [1] * right + [0] * (80 - right)
        records += two_subtasks(f"random:seed={seed}", wrong, BAD[:20], seed=seed)
    runs = read_runs(write_run(tmp_path, records))
    board = leaderboard(runs)
    full, row = board.rows[:2]
    assert (row["intervention"], row["seeds"], row["n"]) == ("random", [0, 1, 2], 100)
    together = np.stack([run.correct for run in runs[1:]])
    cluster = np.unique(np.asarray(runs[0].video_id, str), return_inverse=True)[1]
    expected = seeds_accuracy(together, cluster)
    assert (row["micro"], row["low"], row["high"]) == pytest.approx(
        (expected.estimate, expected.low, expected.high)
    )
    assert row["between_seeds"] == pytest.approx(together.mean(axis=1).std(ddof=1))
    assert row["macro"] == pytest.approx((np.mean([50, 40, 44]) / 80 + 0) / 2)
    condition = seed_condition(runs[0].correct, together, cluster)
    assert (full["ties"] != row["ties"]) == (condition.test.p_value < 0.05)
    each = leaderboard(runs, each_seed=True)
    assert [one["intervention"] for one in each.rows[1:4]] == [
        "random:seed=0",
        "random:seed=2",
        "random:seed=1",
    ]
    assert "spread" not in [column.head for column in each.columns]
    assert [one.head for one in choose_columns([each], ["spread", "one"])[0].columns] == [
        "spread",
        "one",
    ]
    assert "3 seeds (0, 1, 2) in one row" in render([board], "csv")


def test_seeds_of_other_protocols_or_questions_and_repeated_seeds_have_rows_of_their_own(tmp_path):
    first = answers("random:seed=0", GOOD, seed=0) + answers("random:seed=1", BAD, seed=1)
    other = answers("random:seed=2", GOOD, seed=2, protocol="official")
    fewer = answers("random:seed=3", GOOD[:60], seed=3)
    runs = read_runs(write_run(tmp_path / "a", first))
    runs += read_runs(write_run(tmp_path / "b", other)) + read_runs(
        write_run(tmp_path / "c", fewer)
    )
    seeds = [row["seeds"] for row in leaderboard(runs).rows if "seeds" in row]
    assert sorted(seeds) == [[0, 1], [2], [3]]
    again = [*runs[:2], *read_runs(write_run(tmp_path / "d", first[:80]))]
    assert [len(row["seeds"]) for row in leaderboard(again).rows if "seeds" in row] == [1, 1, 1]


def test_protocol_frames_and_subtasks_are_columns(tmp_path):
    runs = read_runs(
        write_run(tmp_path, two_subtasks("full", GOOD, GOOD[:20], frame_indices=(1, 5, 9)))
    )
    board = with_subtasks(leaderboard(runs))
    cells = {column.head: column.show(board.rows[0]) for column in board.columns}
    assert (cells["protocol"], cells["frames"]) == ("paper", "3")
    assert (cells["one"], cells["two"]) == ("75.0", "100.0")
    guessing = next(row for row in board.rows if row["model"] == "guessing")
    assert guessing["accuracy one"] == pytest.approx(1 / 4)
    assert "one" in [column.head for column in board.compacted().columns]


def test_incomplete_runs_stand_apart_below_and_ties_are_marked(tmp_path):
    sizes = {"tvbench": 80}
    whole = answers("full", GOOD) + answers("effective", ALSO_GOOD) + answers("cut", BAD)
    runs = read_runs(write_run(tmp_path / "whole", whole), sizes=sizes)
    runs += read_runs(write_run(tmp_path / "part", answers("part", [1] * 20)), sizes=sizes)
    board = leaderboard(runs)
    assert board.rows[-1]["intervention"] == "part" and board.rows[-1]["ties"] == ""
    kinds = [row.get("paper", row["model"] == "guessing") for row in board.rows]
    assert board.apart == [3, kinds.index(False, 3) - 1, len(board.rows) - 1]
    (marks,) = board.marks
    assert (marks.head, marks.best, marks.tied) == ("micro [95 % CI]", {0}, {1})
    assert leaderboard(runs[:3]).apart == board.apart[:2]
    text = render([board], "latex")
    assert text.count("\\midrule") == 4 and "\\textbf{75.0} [" in text
    assert "73.8$^{\\dagger}$ [" in text and "25.0 [" in text


def test_only_what_was_tested_against_the_best_is_marked(tmp_path):
    sizes = {"tvbench": 80}
    whole = read_runs(write_run(tmp_path / "whole", answers("full", GOOD)), sizes=sizes)
    other = [replace(one, target="B") for one in answers("effective", ALSO_GOOD)]
    other = read_runs(write_run(tmp_path / "other", other), sizes=sizes)
    table = leaderboard(whole + other)
    assert any("cannot be compared" in note for note in table.notes)
    (marks,) = table.marks
    assert (marks.best, marks.tied) == ({0}, set())


def test_runs_of_other_parts_of_a_benchmark_have_no_best(tmp_path):
    sizes = {"tvbench": 100}
    runs = read_runs(write_run(tmp_path / "most", answers("full", GOOD)), sizes=sizes)
    runs += read_runs(write_run(tmp_path / "few", answers("full", [1] * 5)), sizes=sizes)
    table = leaderboard(runs)
    assert table.marks == [] and not any("not ranked" in note for note in table.notes)


def test_a_run_without_answers_is_refused(tmp_path):
    with pytest.raises(MapflowError, match="none of the 2 questions could be asked"):
        board(tmp_path, answers("full", [None, None]))


@pytest.mark.parametrize("correct", [[1] * 8, [0] * 8, [1]])
def test_extremes_are_no_crash(tmp_path, correct):
    row = board(tmp_path, answers("full", correct), answers("effective", correct)).rows[0]
    assert 0 <= row["low"] <= row["micro"] <= row["high"] <= 1 and row["ties"] == "a"


def test_one_video_alone_is_no_evidence_of_a_difference(tmp_path):
    table = board(
        tmp_path,
        answers("full", [1] * 19 + [0], video_id="v"),
        answers("effective", [0] * 20, video_id="v"),
    )
    own = [row for row in table.rows if "ties" in row]
    assert [row["ties"] for row in own] == ["a", "a"]
    limits = ("low", "high", "macro_low", "macro_high", "standard_error")
    assert all(row[name] is None for row in own for name in limits)
    text = render([table], "markdown")
    assert (
        "95.0" in text and "95.0 [" not in text and "all 20 questions are about one video" in text
    )
    assert "intervals allow for that" not in text


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

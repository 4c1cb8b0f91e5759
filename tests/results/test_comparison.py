"""Tables say what the statistics say about the right questions: hand counts on small runs, and
every count left out."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from mapflow.results.contract.errors import MapflowError
from mapflow.results.runs.run import read_runs
from mapflow.results.statistics import (
    RunOutcomes,
    compare_runs,
    holm,
    sentence,
)
from mapflow.results.tables import comparison
from mapflow.results.tables.comparison import (
    all_differ,
    compare_groups,
    compare_with_baseline,
    comparison_table,
)
from mapflow.results.tables.formats import Column, Row, render
from mapflow.results.tables.subtasks import subtask_table
from tests.results.run_folders import answers, write_run

TITLES = {"tvbench": "TVBench"}
BEFORE = [1] * 30 + [0] * 10
AFTER = [1] * 27 + [0] * 3 + [1] * 2 + [0] * 8


def runs_of(folder, **answers_by_intervention):
    records = [
        r for name, correct in answers_by_intervention.items() for r in answers(name, correct)
    ]
    return read_runs(write_run(folder, records), TITLES)


def test_cells_are_those_counted_by_hand_and_the_sentence_is_the_librarys(tmp_path):
    full, effective = runs_of(tmp_path, full=BEFORE, effective=AFTER)
    (one,) = compare_with_baseline(full, [effective])
    row = comparison_table([one]).rows[0]
    assert (row["both_right"], row["lost"], row["gained"], row["both_wrong"]) == (27, 3, 2, 8)
    assert row["n"] == 40 and row["videos"] == 20 and row["difference"] == pytest.approx(-1 / 40)
    ids, video = [f"q{i:02}" for i in range(40)], [i // 2 for i in range(40)]
    direct = compare_runs(
        RunOutcomes("full", ids, BEFORE, video), RunOutcomes("effective", ids, AFTER, video)
    )
    assert (row["low"], row["high"]) == (direct.difference.low, direct.difference.high)
    assert row["p"] == direct.test.p_value
    assert one.text == sentence(direct, "TVBench")
    assert one.text in render([comparison_table([one])], "terminal")
    assert "3 lost, 2 gained" in one.text


def test_questions_that_either_run_could_not_ask_are_left_out_of_both_and_counted(tmp_path):
    full = runs_of(tmp_path / "a", full=[None, *BEFORE[1:]])[0]
    effective = runs_of(tmp_path / "b", effective=[*AFTER[:-1], None])[0]
    (one,) = compare_with_baseline(full, [effective])
    assert one.comparison.n == 38 and one.not_asked == 2
    assert one.comparison.cells.both == 26 and one.comparison.cells.neither == 7
    assert "2 questions could not be asked" in render([comparison_table([one])], "terminal")


def test_other_question_sets_are_refused_even_where_only_errors_differ_and_intersected_on_request(
    tmp_path,
):
    full = runs_of(tmp_path / "a", full=BEFORE)[0]
    for name, shorter in (("plain", AFTER[:-4]), ("with errors", [None, *AFTER[1:-4]])):
        effective = runs_of(tmp_path / name, effective=shorter)[0]
        with pytest.raises(MapflowError, match=r"answer different questions.*--intersect"):
            compare_with_baseline(full, [effective])
        (one,) = compare_with_baseline(full, [effective], intersect=True)
        assert one.comparison.n == 36 - one.not_asked
        assert one.comparison.left_out == (4, 0)
        assert "left out: 4 of full" in render([comparison_table([one])], "terminal")


def test_a_question_that_one_run_could_not_ask_and_the_other_was_never_asked_is_a_mismatch(
    tmp_path,
):
    full = runs_of(tmp_path / "a", full=[*BEFORE[:-1], None])[0]
    effective = runs_of(tmp_path / "b", effective=AFTER[:-1])[0]
    with pytest.raises(MapflowError, match="answer different questions"):
        compare_with_baseline(full, [effective])
    (one,) = compare_with_baseline(full, [effective], intersect=True)
    assert one.comparison.n == 39


def test_gold_answers_that_differ_are_refused(tmp_path):
    full = runs_of(tmp_path / "a", full=[1, 0, 1])[0]
    other = read_runs(write_run(tmp_path / "b", answers("effective", [1, 0, None], target="B")))[0]
    with pytest.raises(MapflowError, match=r"has gold 'A' in run .* but 'B'"):
        compare_with_baseline(full, [other])


def test_p_values_are_corrected_over_everything_compared_together(tmp_path):
    groups = [
        runs_of(tmp_path / n, full=BEFORE, effective=AFTER, random=BEFORE[::-1]) for n in "ab"
    ]
    pairs = compare_groups(groups)
    assert len(pairs) == 4
    expected = holm(np.array([one.comparison.test.p_value for one in pairs]))
    assert [one.comparison.p_holm for one in pairs] == expected.tolist()


def test_all_tied_all_right_and_one_video(tmp_path):
    tied, again = runs_of(tmp_path / "tied", full=BEFORE, effective=BEFORE)
    (one,) = compare_with_baseline(tied, [again])
    assert one.comparison.test.p_value == 1 and one.comparison.difference.estimate == 0
    right, again = runs_of(tmp_path / "right", full=[1] * 40, effective=[1] * 40)
    (one,) = compare_with_baseline(right, [again])
    row = comparison_table([one]).rows[0]
    assert row["treatment_accuracy"] == 1 and row["p"] == 1 and row["low"] < 0 < row["high"]
    records = answers("full", BEFORE, video_id="v") + answers("effective", AFTER, video_id="v")
    one_video = read_runs(write_run(tmp_path / "video", records))
    with pytest.raises(MapflowError, match="all 40 questions are about one video"):
        compare_with_baseline(one_video[0], one_video[1:])


def test_one_run_alone_is_refused(tmp_path):
    (full,) = runs_of(tmp_path, full=BEFORE)
    with pytest.raises(MapflowError, match="only one run"):
        compare_with_baseline(full, [])


def test_runs_where_nothing_could_be_asked_are_refused(tmp_path):
    full, effective = runs_of(tmp_path, full=[1, 0], effective=[None, None])
    with pytest.raises(MapflowError, match="has no answered question"):
        compare_with_baseline(full, [effective])


def test_protocol_frames_dtype_versions_and_weights_that_differ_are_warned_of(tmp_path):
    full = runs_of(tmp_path / "a", full=BEFORE)[0]
    changed = {
        "dtype": "bfloat16",
        "versions": {"torch": "2.1", "mapflow": "0.1"},
        "digest": "f" * 64,
    }
    records = answers("effective", AFTER, protocol="official", frame_indices=(0, 2))
    effective = read_runs(write_run(tmp_path / "b", records, identity=changed))[0]
    (one,) = compare_with_baseline(full, [effective])
    text = " ".join(one.warnings)
    for said in (
        "protocols differ (paper and official)",
        "40 shared questions were shown with other frames",
        "dtype float32 and bfloat16",
        "torch 2.0 and 2.1",
        "weights differ",
    ):
        assert said in text
    assert "mapflow 0.1 and" not in text
    (same,) = compare_with_baseline(full, runs_of(tmp_path / "c", effective=AFTER))
    assert same.warnings == ()


def test_subtasks_have_their_own_rows_and_add_up(tmp_path):
    records = [
        r
        for name, correct in (("full", BEFORE), ("effective", AFTER))
        for i, r in enumerate(answers(name, correct))
    ]
    halves = [
        type(r)(**{**vars(r), "task": "t_one" if int(r.question_id[-4:]) < 30 else "t_two"})
        for r in records
    ]
    full, effective = read_runs(write_run(tmp_path, halves), TITLES)
    pairs = compare_with_baseline(full, [effective])
    rows = subtask_table(pairs).rows
    assert [(row["subtask"], row["n"], row["lost"], row["gained"]) for row in rows] == [
        ("t_one", 30, 3, 0),
        ("t_two", 10, 0, 2),
    ]
    assert "macro average +5.0 points" in render([subtask_table(pairs)], "terminal")


def test_a_new_column_in_front_leaves_the_others_under_their_headings(tmp_path, monkeypatch):
    """Cells belong to headings, not to places: both tables keep every other column as it was."""
    halves = [
        replace(record, task="t_one" if i % 40 < 30 else "t_two")
        for i, record in enumerate(answers("full", BEFORE) + answers("effective", AFTER))
    ]
    full, effective = read_runs(write_run(tmp_path, halves), TITLES)
    pairs = compare_with_baseline(full, [effective])

    def cells(table):
        return {column.head: [column.show(row) for row in table.rows] for column in table.columns}

    whole, subtasks = cells(comparison_table(pairs)), cells(subtask_table(pairs))
    new: Column[Row] = Column("videos", lambda row: f"{row['videos']:,}")
    monkeypatch.setattr(comparison, "COLUMNS", (new, *comparison.COLUMNS))
    assert cells(comparison_table(pairs)) == {"videos": ["20"], **whole}
    assert cells(subtask_table(pairs)) == subtasks
    assert subtasks["lost"] == ["3", "0"] and subtasks["gained"] == ["0", "2"]


def test_an_open_verdict_says_what_could_have_been_seen(tmp_path):
    full, effective = runs_of(tmp_path / "a", full=BEFORE * 10, effective=AFTER * 10)
    (one,) = compare_with_baseline(full, [effective])
    assert one.comparison.non_inferiority.verdict == "inconclusive"
    found = one.comparison.detectable
    assert found is not None
    assert (
        f"effective on TVBench: A change of {100 * found:.1f} points would have been found"
        in render([comparison_table([one])], "terminal")
    )
    full, effective = runs_of(tmp_path / "b", full=[1] * 40, effective=[0] + [1] * 39)
    (one,) = compare_with_baseline(full, [effective])
    assert "would have been found" in render([comparison_table([one])], "terminal")
    (closed,) = compare_with_baseline(full, [effective], margin=0.5)
    assert "80 % power" not in render([comparison_table([closed])], "terminal")


def test_probabilities_are_tested_beside_the_verdict_where_both_runs_have_them(tmp_path):
    rng = np.random.default_rng(0)
    before, after = rng.uniform(0.3, 0.6, 40), rng.uniform(0.2, 0.5, 40)
    records = [
        replace(
            one,
            p_target=float(p),
            option_probs={"A": float(p), "B": 0.125, "C": 0.0, "D": 0.0625},
            p_answer=float(p),
        )
        for name, own in (("full", before), ("effective", after))
        for one, p in zip(answers(name, BEFORE), own, strict=True)
    ]
    full, effective = read_runs(write_run(tmp_path / "a", records))
    table = comparison_table(compare_with_baseline(full, [effective]))
    (row,) = table.rows
    by_video = (after - before).reshape(20, 2).mean(axis=1)
    expected = ttest_1samp(by_video, 0)
    assert row["p_target_change"] == pytest.approx(by_video.mean()) and row["p_target_n"] == 40
    assert row["p_target_p"] == pytest.approx(expected.pvalue) and row["p"] == 1
    margins = np.log(after / before).reshape(20, 2).mean(axis=1)
    assert row["target_margin_change"] == pytest.approx(margins.mean())
    assert row["target_margin_p"] == pytest.approx(ttest_1samp(margins, 0).pvalue)
    heads = [column.head for column in table.columns]
    assert "p(right) change [95 % CI]" in heads and "margin change [95 % CI]" not in heads
    assert row["verdict"] == "inconclusive" and "never the verdict" in " ".join(table.notes)
    unknown = [replace(one, p_target=None, option_probs=None) for one in records[40:]]
    effective = read_runs(write_run(tmp_path / "b", unknown))[0]
    table = comparison_table(compare_with_baseline(full, [effective]))
    assert table.rows[0]["p_target_change"] is None and table.rows[0]["p_target_n"] == 0
    assert not any("right) change" in column.head for column in table.columns)


def test_more_than_two_runs_at_once(tmp_path):
    runs = runs_of(tmp_path, full=BEFORE, effective=AFTER, random=BEFORE[::-1])
    assert all_differ(runs, False).startswith("All 3 runs on TVBench at once: p ")


def test_every_table_says_what_it_was_measured_on(tmp_path):
    full, effective = runs_of(tmp_path / "run", full=BEFORE, effective=AFTER)
    text = render([comparison_table(compare_with_baseline(full, [effective]))], "terminal")
    for said in (
        "mapflow_llava",
        "tiny",
        "0123456789abcdef" * 4,
        "paper",
        "float32 on cpu",
        "torch 2.0",
        "git state not recorded",
    ):
        assert said in text
    assert "effective in full" in text

"""Summaries against sums done by hand."""

import pytest

from mapflow.results.tables.summary import short_names, summarize, summary_table
from tests.results.records import a_record

RECORDS = [
    a_record(0),
    a_record(1, correct=False, prediction="B"),
    a_record(2, correct=False, prediction="x", valid=False),
    a_record(3, task="t_two", n_options=2, edges_kept=30),
    a_record(
        4,
        task="t_two",
        n_options=2,
        error="no such file",
        correct=None,
        valid=None,
        edges_kept=None,
        edges_total=None,
    ),
]


def test_macro_micro_chance_edges_and_what_is_left_out():
    (summary,) = summarize(RECORDS)
    assert summary.accuracy == {"t_one": pytest.approx(1 / 3), "t_two": 1.0}
    assert summary.macro == pytest.approx(2 / 3)
    assert summary.micro == pytest.approx(2 / 4)
    assert summary.chance_macro == pytest.approx((1 / 4 + 1 / 2) / 2)
    assert summary.chance_micro == pytest.approx((3 / 4 + 1 / 2) / 4)
    assert summary.edges_kept == pytest.approx(15)
    assert summary.edges_share == pytest.approx(15 / 40)
    assert (summary.n, summary.invalid, summary.errors) == (4, 1, 1)


def test_the_table_has_a_row_an_intervention_and_a_column_a_subtask():
    table = summary_table(summarize([*RECORDS, a_record(0, "effective", correct=False)]))
    header, _, full, effective = table.splitlines()
    assert header.split()[:3] == ["intervention", "one", "two"]
    assert full.split() == [
        "full",
        "33.3",
        "100.0",
        "66.7",
        "50.0",
        "37.5",
        "75.0",
        "15",
        "37.5",
        "4",
        "1",
    ]
    assert effective.split() == [
        "effective",
        "0.0",
        "–",
        "0.0",
        "0.0",
        "25.0",
        "100.0",
        "10",
        "25.0",
        "1",
        "0",
    ]


def test_a_run_without_answers_has_dashes_not_nan():
    (summary,) = summarize([a_record(0, error="gone", correct=None, valid=None, edges_kept=None)])
    assert (summary.macro, summary.micro, summary.valid_rate, summary.edges_share) == (None,) * 4
    assert "–" in summary_table([summary])


@pytest.mark.parametrize(
    ("tasks", "names"),
    [
        (["a_b_one", "a_b_two"], ["one", "two"]),
        (["a_b_c", "a_d"], ["b_c", "d"]),
        (["only_one"], ["only_one"]),
        (["x", "x_y"], ["x", "x_y"]),
    ],
)
def test_names_lose_only_what_all_of_them_share(tasks, names):
    assert short_names(tasks) == names


def test_a_task_that_is_not_right_or_wrong_has_scores_and_no_accuracy():
    free = [
        a_record(n, task="captions", n_options=0, target="", correct=None, scores={"rouge": value})
        for n, value in enumerate((0.25, 0.5))
    ]
    (alone,), (mixed,) = summarize(free), summarize([*RECORDS, *free])
    assert (alone.accuracy, alone.macro, alone.micro, alone.chance_micro) == ({}, None, None, None)
    assert alone.scores == {"captions": {"rouge": 0.375}}
    assert mixed.accuracy.keys() == {"t_one", "t_two"} and mixed.macro is None
    header, _, row = summary_table([alone]).splitlines()
    cells = dict(zip(header.split()[1:], row.split()[1:], strict=False))
    assert (cells["captions"], cells["rouge"], cells["macro"]) == ("–", "0.375", "–")
    unscored = a_record(2, task="captions", n_options=0, target="", correct=None)
    assert summarize([*free, unscored])[0].scores == {}


def test_open_ended_questions_have_no_chance():
    """A guess has nothing to choose from; 0.0 would be a claim."""
    (found,) = summarize([a_record(n, n_options=0, target="two") for n in range(2)])
    assert (found.chance_macro, found.chance_micro) == (None, None) and found.micro is not None
    assert a_record(0, n_options=0, target="two").chance is None
    header, _, row = summary_table([found]).splitlines()
    cells = dict(zip(header.split(), row.split(), strict=False))
    assert cells["chance"] == "–" and cells["micro"] != "–"
    (mixed,) = summarize([a_record(0), a_record(1, n_options=0, target="two")])
    assert mixed.chance_micro is None


def test_scores_are_written_only_where_there_are_some():
    assert "scores" not in a_record().to_line()
    scored = a_record(scores={"acc": 1.0})
    assert type(scored).from_line(scored.to_line(), "here") == scored

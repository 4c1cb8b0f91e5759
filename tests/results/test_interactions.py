"""Interactions of runs: the numbers of the statistics on the right questions, and refusals."""

import numpy as np
import pytest

from mapflow.results.contract.errors import MapflowError
from mapflow.results.runs.run import read_runs
from mapflow.results.statistics import holm, interaction
from mapflow.results.tables.formats import FORMATS, render
from mapflow.results.tables.interactions import interaction_tables
from tests.results.run_folders import answers, write_run

FULL = [1] * 60 + [0] * 20
SLIGHT, STRONG = [1] * 58 + [0] * 22, [0] * 25 + [1] * 35 + [0] * 20


def model(folder, name, ids="tvbench/one/{:04d}", **answers_by_intervention):
    records = [
        one
        for own, correct in answers_by_intervention.items()
        for one in answers(own, correct, question_id=ids)
    ]
    return read_runs(write_run(folder / name, records, identity={"checkpoint": name}))


def test_rows_are_differences_of_differences_over_the_questions_of_all_four(tmp_path):
    small = model(tmp_path, "small", full=FULL, effective=SLIGHT, x=FULL)
    big = model(tmp_path, "big", full=[None, *FULL[1:]], effective=STRONG, x=FULL, y=FULL)
    (table,) = interaction_tables([small, big])
    row, same = table.rows
    assert [one["intervention"] for one in table.rows] == ["effective", "x"]
    first = np.array([FULL, SLIGHT], bool)[:, 1:]
    second = np.array([FULL, STRONG], bool)[:, 1:]
    interval, test = interaction(first, second, (np.arange(80) // 2)[1:])
    found = row["n"], row["interaction"], row["low"], row["high"], row["p"]
    assert found == (79, interval.estimate, interval.low, interval.high, test.p_value)
    assert row["interaction"] == pytest.approx((35 - 59) / 79 - (57 - 59) / 79)
    assert (row["model"], row["reference"]) == ("big", "small")
    p_holm = holm(np.array([row["p"], same["p"]]))
    assert [row["p_holm"], same["p_holm"]] == p_holm.tolist()
    text = render([table], "terminal")
    assert "effective costs big more than small on tvbench" in text
    assert "x is not shown to cost big more or less than small" in text
    assert "1 question could not be asked" in text
    assert all(render([table], how) for how in FORMATS)


def test_folders_of_one_model_are_put_together(tmp_path):
    parts = [
        *(model(tmp_path / "a", "small", full=FULL), model(tmp_path / "b", "big", full=FULL)),
        *(model(tmp_path / "c", "big", cut=STRONG), model(tmp_path / "d", "small", cut=SLIGHT)),
    ]
    (table,) = interaction_tables(parts)
    assert [row["intervention"] for row in table.rows] == ["cut"]


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ({"full": FULL}, "no two models share 'full' and another intervention"),
        ({"full": FULL[:60], "cut": FULL[:60]}, "answer different questions"),
        ({"full": FULL, "cut": FULL, "ids": "tvbench/other/{:04d}"}, "share no question"),
        (
            {"full": FULL, "cut": FULL, "ids": "tomato/one/{:04d}"},
            "full on tvbench.*full on tomato",
        ),
        (None, "needs two models, and these runs are of one"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path, second, said):
    small = model(tmp_path, "small", full=FULL, cut=SLIGHT)
    others = [] if second is None else [model(tmp_path, "big", **second)]
    with pytest.raises(MapflowError, match=said):
        interaction_tables([small, *others])
    with pytest.raises(MapflowError, match="no two models share 'absent'"):
        interaction_tables([small, model(tmp_path, "other", full=FULL, cut=FULL)], "absent")


@pytest.mark.parametrize("n", [1, 2])
def test_one_question_or_one_video(tmp_path, n):
    runs = [model(tmp_path, name, full=[1] * n, cut=[0] * n) for name in ("small", "big")]
    if n == 1:
        (row,) = interaction_tables(runs)[0].rows
        assert row["interaction"] == 0 and row["p"] == 1 and row["low"] < -0.9
    else:
        with pytest.raises(MapflowError, match="all 2 questions are about one video"):
            interaction_tables(runs)

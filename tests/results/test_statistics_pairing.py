"""Alignment by question id: mismatches are refused, and the order of records does not matter."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapflow.results.contract.errors import MapflowError
from mapflow.results.statistics import RunOutcomes, cluster_sums, pair

IDS = ["q1", "q2", "q3", "q4"]


def run(name="full", ids=IDS, correct=(1, 0, 1, 1), **columns) -> RunOutcomes:
    return RunOutcomes(name, ids, correct, **columns)


@given(st.permutations(range(12)), st.permutations(range(12)))
def test_order_of_records_does_not_matter(first, second):
    ids = np.array([f"q{i}" for i in range(12)])
    correct, other = np.arange(12) % 3 == 0, np.arange(12) % 2 == 0
    video = np.array([f"v{i // 3}" for i in range(12)])
    paired = pair(
        [
            RunOutcomes("a", ids[first], correct[first], video[first]),
            RunOutcomes("b", ids[second], other[second], video[second]),
        ]
    )
    assert paired.question_id.tolist() == sorted(ids)
    by_id = {q: (c, o, v) for q, c, o, v in zip(ids, correct, other, video, strict=True)}
    for column, question in enumerate(paired.question_id):
        assert tuple(paired.correct[:, column]) == by_id[question][:2]
        together = paired.cluster == paired.cluster[column]
        assert together.sum() == 3 and {by_id[q][2] for q in paired.question_id[together]} == {
            by_id[question][2]
        }


def test_intersect_keeps_the_shared_questions_and_counts_the_rest():
    other = run("random", ["q4", "q9", "q2"], [True, False, True])
    paired = pair([run(), other], intersect=True)
    assert paired.question_id.tolist() == ["q2", "q4"]
    assert paired.correct.tolist() == [[False, True], [True, True]]
    assert paired.left_out == (2, 1)


def test_every_question_is_its_own_cluster_without_videos():
    paired = pair([run(), run("random")])
    assert paired.n_clusters == paired.n == 4 and not paired.clustered
    assert not pair([run(video_id=list("abcd")), run("random")]).clustered
    assert pair([run(), run("random", video_id=list("abca"))]).n_clusters == 3, (
        "any run may name the videos"
    )


def test_numbers_serve_as_ids_and_columns():
    paired = pair([RunOutcomes("a", np.arange(3), np.array([1.0, 0.0, 1.0]), task=[7, 7, 8])])
    assert paired.question_id.tolist() == ["0", "1", "2"] and paired.task_names == ("7", "8")


def test_cluster_sums_are_exact_for_one_and_many_columns():
    cluster = np.array([1, 0, 1, 3])
    assert cluster_sums(np.array([1, 2, 4, 8]), cluster).tolist() == [2, 5, 0, 8]
    assert cluster_sums(np.array([[1, 0], [2, 0], [4, 1], [8, 0]]), cluster).tolist() == [
        [2, 0],
        [5, 1],
        [0, 0],
        [8, 0],
    ]


@pytest.mark.parametrize(
    ("runs", "names"),
    [
        ([], ["no runs"]),
        ([run(ids=[], correct=[])], ["'full'", "no answered question"]),
        ([run(ids=["q1", "q2", "q2", "q4"])], ["'full'", "'q2'", "more than once"]),
        ([run(correct=[1, 0, float("nan"), 1])], ["'full'", "'q3'", "nan"]),
        ([run(correct=[1, 0, None, 1])], ["'full'", "'q3'", "None"]),
        ([run(correct=[1, 0, 0.5, 1])], ["'q3'", "0.5"]),
        ([run(correct=["yes", "no", "no", "no"])], ["'q1'", "yes"]),
        ([run(correct=[1, 0, 1])], ["'full'", "correct", "(3,)"]),
        ([run(ids=["q1", None, "q3", "q4"])], ["question_id", "row 2"]),
        ([run(video_id=["a", "b", float("nan"), "d"])], ["video_id", "row 3"]),
        (
            [run(gold=list("ABCD")), run("x", gold=list("ABDD"))],
            ["'q3'", "gold", "'C'", "'D'", "'x'"],
        ),
        ([run(video_id=list("aabb")), run("x", video_id=list("aaab"))], ["'q3'", "video_id"]),
        ([run(task=list("aabb")), run("x", task=list("aaab"))], ["'q3'", "task"]),
        (
            [run(), run("x", ["q1", "q2", "q3", "q5"])],
            ["'full' has 4", "3 are shared", "'q4'", "--intersect"],
        ),
        ([run(), run("x", ["p1", "p2", "p3", "p4"])], ["share no question"]),
    ],
)
def test_refusals_are_one_line_that_names_run_and_question(runs, names):
    with pytest.raises(MapflowError) as refusal:
        pair(runs)
    message = str(refusal.value)
    assert "\n" not in message and all(name in message for name in names), message

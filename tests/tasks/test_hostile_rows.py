"""Question files that are wrong, or mean harm, are refused by question and field."""

import json
import math

import pytest

from mapflow.results.contract.answers import grade
from mapflow.results.contract.errors import MapflowError
from mapflow.tasks.data_folder import DataFolder
from mapflow.tasks.registry import BENCHMARKS
from mapflow.tasks.rows import file_name_of, read_rows

from .folders import put, tomato_row, tvbench_row, write_tomato, write_tvbench


def read_tvbench(root, *rows, subtask="action_count"):
    write_tvbench(root, {subtask: rows})
    benchmark = BENCHMARKS["tvbench"]
    return benchmark.questions(DataFolder(benchmark.layout, root), subtask)


def read_tomato(root, *rows, subtask="count"):
    write_tomato(root, {subtask: rows})
    benchmark = BENCHMARKS["tomato"]
    return benchmark.questions(DataFolder(benchmark.layout, root), subtask)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1", "0001"),
        ("0", "000"),
        ("1", "１"),
        ("a", "A"),
        ("1", "1 "),
        ("é", "e\u0301"),
        ("٣", "3"),
    ],
)
def test_numbers_that_differ_in_spelling_only_are_refused(tmp_path, one, other):
    path = tmp_path / "questions.json"
    path.write_text(json.dumps({one: tvbench_row(), other: tvbench_row()}), encoding="utf-8")
    with pytest.raises(
        MapflowError, match=r"^\S+: question numbers .* differ in spelling only; give"
    ):
        read_rows(path)


def test_numbers_that_differ_stay_apart(tmp_path):
    numbers = ["1", "10", "01a", "1a", "a/b", "a-b", "100", "0"]
    path = tmp_path / "questions.json"
    path.write_text(json.dumps({number: tvbench_row() for number in numbers}), encoding="utf-8")
    assert [number for number, _ in read_rows(path)] == numbers


def test_one_video_file_has_one_name(tmp_path):
    """Questions are clustered by video, so two names of one file would count as two videos."""
    names = ["a/clip.mp4", "./a/clip.mp4", "a//clip.mp4", "a/./clip.mp4"]
    questions = read_tvbench(tmp_path, *(tvbench_row(video=name) for name in names))
    assert {question.video_id for question in questions} == {"action_count/a/clip.mp4"}


def test_a_right_option_that_is_listed_twice_is_right_by_either_letter(tmp_path):
    candidates = ["Left.", "Right.", "Up.", "Right."]
    (question,) = read_tvbench(tmp_path, tvbench_row(candidates=candidates))
    assert (question.target_text, question.n_right) == ("B", 2)
    assert [grade(question, letter)[0] for letter in "ABCD"] == [False, True, False, True]


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("video", {"video": "../../etc/passwd"}),
        ("video", {"video": "/etc/passwd"}),
        ("video", {"video": "~/clip.mp4"}),
        ("video", {"video": "a/../../clip.mp4"}),
        ("video", {"video": "..\\clip.mp4"}),
        ("video", {"video": "C:clip.mp4"}),
        ("video", {"video": "clip\0.mp4"}),
        ("video", {"video": "clip\x1b[2J.mp4"}),
        ("video", {"video": "clip\u202egnp.mp4"}),
        ("video", {"video": "clip\ud800.mp4"}),
        ("video", {"video": "a" * 5000}),
        ("video", {"video": ""}),
        ("video", {"video": "."}),
        ("video", {"video": 7}),
        ("video", {"video": None}),
        ("question", {"question": None}),
        ("question", {"question": "  "}),
        ("question", {"question": ["?"]}),
        ("question", {"question": "half a pair \ud83d"}),
        ("candidates", {"candidates": ["Right.", "\udc00"]}),
        ("start", {"start": 10**400, "end": 10**401}),
        ("end", {"start": 0, "end": 10**9}),
        ("candidates", {"candidates": None}),
        ("candidates", {"candidates": ["Right."]}),
        ("candidates", {"candidates": "Right."}),
        ("candidates", {"candidates": ["Right.", ""]}),
        ("candidates", {"candidates": ["Right.", None]}),
        ("candidates", {"candidates": ["Right.", math.nan]}),
        ("candidates", {"candidates": ["Right."] + [str(n) for n in range(26)]}),
        ("answer", {"answer": "Up."}),
        ("answer", {"answer": "right."}),
        ("answer", {"answer": None}),
        ("answer", {"answer": True}),
        ("start", {"start": 2.0, "end": 1.0}),
        ("start", {"start": 1.0, "end": 1.0}),
        ("start", {"start": math.nan, "end": 1.0}),
        ("start", {"start": -1.0, "end": 1.0}),
        ("start", {"start": "0", "end": 1.0}),
        ("end", {"start": 0.0, "end": math.inf}),
        ("end", {"start": 0.0}),
        ("start", {"end": 1.0}),
    ],
)
def test_tvbench_names_question_and_field(tmp_path, field, changes):
    with pytest.raises(
        MapflowError, match=rf"^tvbench/action_count/0001: field '{field}'"
    ) as refused:
        read_tvbench(tmp_path, tvbench_row(), tvbench_row(**changes))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("subtask", ["action_sequence", "action_localization"])
def test_two_subtasks_need_bounds(tmp_path, subtask):
    with pytest.raises(MapflowError, match=rf"^tvbench/{subtask}/0000: field 'start' is missing"):
        read_tvbench(tmp_path, tvbench_row(), subtask=subtask)
    (question,) = read_tvbench(tmp_path, tvbench_row(start=0, end=2.5), subtask=subtask)
    assert (question.clip.start, question.clip.end) == (0.0, 2.5)


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("answer", {"answer": 3}),
        ("answer", {"answer": -1}),
        ("answer", {"answer": "1"}),
        ("answer", {"answer": True}),
        ("answer", {"answer": 1.0}),
        ("options", {"options": ["1"]}),
        ("options", {"options": {"A": "1", "B": "2"}}),
        ("demonstration_type", {"demonstration_type": "cartoon"}),
        ("demonstration_type", {"demonstration_type": "../.."}),
        ("key", {"key": "../../0001"}),
        ("key", {"key": None}),
        ("question", {"question": None}),
    ],
)
def test_tomato_names_question_and_field(tmp_path, field, changes):
    with pytest.raises(MapflowError, match=rf"^tomato/count/0001: field '{field}'"):
        read_tomato(tmp_path, tomato_row(), tomato_row(**changes))


def test_links_out_of_the_folder_are_refused(tmp_path):
    outside = put(tmp_path / "outside" / "clip.mp4")
    root = tmp_path / "data"
    folder = root / "video" / "action_count"
    folder.mkdir(parents=True)
    (folder / "clip.mp4").symlink_to(outside)
    with pytest.raises(
        MapflowError, match=r"^tvbench/action_count/0000: field 'video'.*out of the data folder"
    ):
        read_tvbench(root, tvbench_row())
    (folder / "clip.mp4").unlink()
    folder.rmdir()
    folder.symlink_to(outside.parent)
    with pytest.raises(MapflowError, match="out of the data folder"):
        read_tvbench(root, tvbench_row())


def test_links_within_the_folder_are_followed(tmp_path):
    real = put(tmp_path / "elsewhere" / "clip.mp4")
    link = tmp_path / "video" / "action_count" / "clip.mp4"
    link.parent.mkdir(parents=True)
    link.symlink_to(real)
    (question,) = read_tvbench(tmp_path, tvbench_row())
    assert question.clip.path == str(link)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        "null",
        "3",
        "[3]",
        '[{"video": ',
        "\ud800",
        "[" * 100_000,
        "[" + "9" * 5000 + "]",
        '[{"answer": 1, "answer": 2}]',
        '{"0": {}, "0": {}}',
    ],
)
def test_files_that_hold_no_questions(tmp_path, content):
    path = tmp_path / "json" / "action_count.json"
    path.parent.mkdir()
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    benchmark = BENCHMARKS["tvbench"]
    with pytest.raises(MapflowError, match=r"action_count\.json"):
        benchmark.questions(DataFolder(benchmark.layout, tmp_path), "action_count")


def test_missing_videos_are_no_reason_to_stop(tmp_path):
    (question,) = read_tvbench(tmp_path, tvbench_row("none.mp4"))
    assert question.clip.path.endswith("video/action_count/none.mp4")


def test_numbers_become_text(tmp_path):
    (question,) = read_tvbench(tmp_path, tvbench_row(candidates=[2, 3, 5, 4], answer="4"))
    assert (question.options, question.target) == (("2", "3", "5", "4"), 3)
    (question,) = read_tvbench(tmp_path, tvbench_row(candidates=["2", "3"], answer=3))
    assert (question.options, question.target_text) == (("2", "3"), "B")


def test_names_with_folders_and_spaces_are_fine():
    for name in ("1.1/a b.MP4", "c&d.avi", "e..f.mp4"):
        assert file_name_of({"video": name}, "video", "here") == name

"""Prompts against those of the released code, byte for byte, up to where the model goes on.

The goldens are read from `open_ended_prompts.json` (questions of every open-ended subtask) and
`foreign_prompts.json` (rows of LongVideoBench, Video-MME and VCGBench).
"""

import json
from types import SimpleNamespace

import pyarrow
import pytest
import torch
from pyarrow import parquet

from mapflow.harness.analyses.analysis import Analysis
from mapflow.harness.analyses.sweep import Sweep
from mapflow.model_adapters.families.internvl.model import InternVLVideo
from mapflow.model_adapters.families.llava.model import LlavaVideo
from mapflow.model_adapters.families.videollama3.model import VideoLlama3
from mapflow.model_adapters.video.sampling import stated_seconds
from mapflow.results.contract.answers import grade
from mapflow.results.contract.errors import MapflowError
from mapflow.tasks.data_folder import DataFolder
from mapflow.tasks.lmms_functions import doc_to_text, process_results
from mapflow.tasks.registry import BENCHMARKS, load_questions

from .folders import tvbench_row, write_tvbench

TIMES = (0.0, 1.3, 2.6, 3.9, 5.25, 6.55, 7.85, 9.15)


def rendered(question, family):
    """The conversation of a family as text; the video is its placeholder, once per video."""
    model = object.__new__(family)
    if family is LlavaVideo:
        model.network = SimpleNamespace(pooling_shape=(8, 1, 1))
        model.placeholder = lambda: "<image>"
    else:
        model.network = SimpleNamespace(tokens_per_frame=1)
    if family is VideoLlama3:
        model.preprocessing = SimpleNamespace(merge=1)
        model.placeholder = lambda: "<image>"
    vision = {"pixel_values": torch.zeros(8, 1), "grid": torch.tensor([8, 1, 1])}
    return "".join(piece.text for piece in model.pieces(question, vision, TIMES))


@pytest.fixture
def open_ended(golden_root):
    path = golden_root / "open_ended_prompts.json"
    if not path.is_file():
        pytest.skip("no open_ended_prompts.json")
    return json.loads(path.read_text(encoding="utf-8"))


def open_questions(root, subtask, rows):
    fields = ("question", "candidates", "answer")
    written = [tvbench_row(start=0, end=1, **{name: row[name] for name in fields}) for row in rows]
    write_tvbench(root, {subtask: written})
    benchmark = BENCHMARKS["tvbench_open"]
    return benchmark.questions(DataFolder(benchmark.layout, root), subtask)


def test_open_ended_prompts_are_the_authors(open_ended, tmp_path):
    assert set(open_ended) == set(BENCHMARKS["tvbench_open"].counts)
    for subtask, rows in open_ended.items():
        for question, row in zip(open_questions(tmp_path, subtask, rows), rows, strict=True):
            assert rendered(question, LlavaVideo) == row["prompt"]
            assert rendered(question, InternVLVideo) == row["phi3_prompt"]
            assert question.prompt("completion").answer_prefix == row["prefix"]
            assert question.target == row["expected_answer"]


@pytest.mark.parametrize(
    ("subtask", "stem", "gold", "begin", "answer"),
    [
        (
            "action_antonym",
            "",
            "Put on a hat/cap.",
            "The action being performed in the video regarding the hat/cap is to",
            "put on a hat/cap.",
        ),
        (
            "action_antonym",
            "",
            "Put the glasses into a bag.",
            "The action being performed in the video regarding the bag is to",
            "put the glasses into a bag.",
        ),
        (
            "action_localization",
            "When does the action 'the person's bag opens' occur?",
            "In the middle of the video.",
            "The action 'the person' occurs at the",
            "middle",
        ),
        (
            "moving_direction",
            "Which way does the ball go?",
            "Down and to the left.",
            "The object moves to the",
            "left",
        ),
        (
            "object_count",
            "How many rubber cylinders are there?",
            "0",
            "The number of moving objects is",
            "zero",
        ),
        (
            "scene_transition",
            "",
            "From an airport to a bar.",
            "The scene in the video changes from the",
            "from an airport to a bar.",
        ),
        (
            "scene_transition",
            "",
            "From New York to a bar.",
            "The scene in the video changes from the",
            "new york to a bar.",
        ),
    ],
)
def test_open_forms_beyond_the_goldens(tmp_path, subtask, stem, gold, begin, answer):
    row = {"question": stem or "What?", "candidates": [gold, "other"], "answer": gold}
    (question,) = open_questions(tmp_path, subtask, [row])
    assert question.prompt("completion").answer_prefix == f"\n{begin}"
    assert question.target == answer


def test_an_open_answer_is_right_by_its_first_token_in_lower_case():
    words = ["left", "Left", "right", "lef"]
    model = SimpleNamespace(text=lambda ids: words[ids[0]])
    prepared = SimpleNamespace(target_id=0)
    right = [LlavaVideo.begins_right(model, prepared, token) for token in range(4)]
    assert right == [True, True, False, False]


def write_rows(root, name, entries):
    """The rows in the data set's own files and folders."""
    folder = root / name
    rows = [entry["row"] for entry in entries]
    if name == "longvideobench":
        folder.mkdir(parents=True)
        (folder / "lvb_val.json").write_text(json.dumps(rows))
    elif name == "videomme":
        path = folder / "videomme" / "test-00000-of-00001.parquet"
        path.parent.mkdir(parents=True)
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        (folder / "Benchmarking_QA").mkdir(parents=True)
        for kind in ("generic", "temporal", "consistency"):
            own = [one["row"] for one in entries if one["task_type"] == f"{kind}_qa"]
            (folder / "Benchmarking_QA" / f"{kind}_qa.json").write_text(json.dumps(own))


@pytest.fixture
def papers(golden_root, tmp_path):
    """A function from a benchmark's name to (golden, its questions), in the golden's order."""
    path = golden_root / "foreign_prompts.json"
    if not path.is_file():
        pytest.skip("no foreign_prompts.json")
    goldens = json.loads(path.read_text(encoding="utf-8"))

    def read(name):
        write_rows(tmp_path, name, goldens[name])
        found = {one.question_id: one for one in questions(name, tmp_path)}
        pairs, seen = [], {}
        for number, golden in enumerate(goldens[name]):
            if name == "vcgbench":
                kind = golden["task_type"].removesuffix("_qa")
                number = seen[kind] = seen.get(kind, -1) + 1
                stem = f"vcgbench/{kind}/{number:04d}"
                ids = [f"{stem}-1", f"{stem}-2"] if kind == "consistency" else [stem]
            else:
                kind = "_".join(golden["task_type"].lower().split())
                ids = [f"{name}/{kind}/{number:04d}"]
            pairs.append((golden, [found.pop(one) for one in ids]))
        assert not found
        return pairs

    return read


def questions(name, data):
    benchmark = BENCHMARKS[name]
    folder = DataFolder(benchmark.layout, data / name)
    return [one for subtask in benchmark.counts for one in benchmark.questions(folder, subtask)]


@pytest.mark.parametrize("name", ["longvideobench", "videomme"])
def test_the_papers_prompts_of_its_appendix(papers, name):
    for golden, (question,) in papers(name):
        assert rendered(question, LlavaVideo) == golden["llava_prompt"]
        assert rendered(question, InternVLVideo) == golden["phi3_prompt"]
        assert rendered(question, VideoLlama3) == golden["videollama3_prompt"]
        assert question.prompt("completion").answer_prefix == golden["answer_prefix"]
        assert question.target_text == golden["answer_letter"]
        assert question.duration == (golden["row"]["duration"] if name[0] == "l" else None)


def test_vcgbench_is_written_and_has_no_score(papers, tmp_path, monkeypatch):
    for golden, asked in papers("vcgbench"):
        assert [rendered(one, LlavaVideo) for one in asked] == golden["llava_prompts"]
        assert [rendered(one, InternVLVideo) for one in asked] == golden["internvl_prompts"]
        assert {(one.target, one.options, one.max_new_tokens) for one in asked} == {("", (), 100)}
        with pytest.raises(MapflowError, match="has no prompt for 'chat' models"):
            asked[0].prompt("chat")
    monkeypatch.setenv("MAPFLOW_DATA", str(tmp_path))
    row = {"task": "mapflow_vcgbench_generic", "question_id": "vcgbench/generic/0000"}
    assert process_results(row, ["A woman waters plants."]).keys() == {"answer"}
    text = doc_to_text(row)  # there is no wording for chat models, so the only one
    assert text.startswith("You are Video-ChatGPT") and text.endswith(
        "\nWhat is happening in the video?"
    )


@pytest.mark.parametrize(
    ("duration", "frames", "indices"),
    [
        (9.6, 300, (0, 36, 72, 108, 144, 180, 216, 252)),  # int(288 / 8) at 30 frames per second
        (3.5, 200, (0, 35, 70, 70, 70, 70, 70, 70)),  # three whole seconds of 105 frames
    ],
)
def test_longvideobenchs_frames_follow_the_stated_duration(duration, frames, indices):
    assert stated_seconds(frames, 30.0, 8, duration=duration) == indices


def test_durations_that_the_video_does_not_have_are_refused():
    with pytest.raises(MapflowError, match="asks for frame 252, the video has 200"):
        stated_seconds(200, 30.0, 8, duration=9.6)
    with pytest.raises(MapflowError, match="holds no whole second"):
        stated_seconds(200, 30.0, 8, duration=0.9)


def test_a_video_is_found_by_any_of_its_suffixes(papers, tmp_path):
    papers("videomme")
    (tmp_path / "videomme" / "data").mkdir()
    (tmp_path / "videomme" / "data" / "synvideo_A1.mkv").write_bytes(b"x")
    paths = {one.clip.path for one in load_questions("mapflow_videomme", data_dir=tmp_path)}
    names = {path.rpartition("/")[2] for path in paths}
    assert {"synvideo_A1.mkv", "synvideo-B2.mp4"} <= names


def test_questions_that_only_a_judge_can_score_are_no_analysis(papers, tmp_path):
    papers("vcgbench")
    found = load_questions("mapflow_vcgbench_generic", data_dir=tmp_path)
    for analysis in (Analysis, Sweep):
        with pytest.raises(MapflowError, match="has no right answers that an analysis can follow"):
            analysis.check(object.__new__(Sweep), found)


@pytest.mark.parametrize("name", ["longvideobench", "videomme"])
def test_written_answers_are_parsed_as_in_videollama3s_evaluation(papers, name, tmp_path):
    for golden, (question,) in papers(name):
        folder = DataFolder(BENCHMARKS[name].layout, tmp_path / name)
        subtask = question.task.removeprefix(f"mapflow_{name}_")
        written = BENCHMARKS[name].questions(folder, subtask, "videollama3")
        (same,) = [one for one in written if one.question_id == question.question_id]
        assert same.user_turn("chat") == question.user_turn("chat")
        for text, letter in golden["videollama3_parsed"].items():
            assert grade(same, text) == (letter == golden["videollama3_answer"], letter is not None)

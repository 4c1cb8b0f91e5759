"""lmms-eval loads our task files, builds our documents and aggregates our metrics, offline."""

import importlib
import json
import re
import sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("lmms_eval")
import datasets

from mapflow.results.contract.answers import NOT_ASKED
from mapflow.results.contract.archives import unpack_clip
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.foreign_prompt import split_prompt
from mapflow.tasks import lmms_functions
from mapflow.tasks.lmms_files import check_table_cache, write_task_files
from mapflow.tasks.lmms_functions import pooled, process_results, valid_answer_rate
from mapflow.tasks.registry import BENCHMARKS

from .folders import tomato_row, tvbench_row, write_tomato, write_tvbench, write_zip


@pytest.fixture(scope="module")
def manager(tmp_path_factory):
    from lmms_eval.tasks import TaskManager

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAPFLOW_CACHE", str(tmp_path_factory.mktemp("cache")))
        return TaskManager(include_path=str(write_task_files()), include_defaults=False)


@pytest.fixture
def load_nested(manager, monkeypatch, tmp_path):
    """A function from a task's or group's name and a data folder to lmms-eval's tree of tasks."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("MAPFLOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MAPFLOW_PROTOCOL", raising=False)
    monkeypatch.setattr(lmms_functions, "_failed", {})

    def named(name, data):
        from lmms_eval.tasks import get_task_dict

        monkeypatch.setenv("MAPFLOW_DATA", str(data))
        return get_task_dict([name], manager)

    return named


@pytest.fixture
def load(load_nested):
    """Likewise, to the tasks by name."""
    return lambda name, data: flat(load_nested(name, data))


def flat(tasks):
    """lmms-eval nests a group's tasks under the group."""
    found = {}
    for key, value in tasks.items():
        found.update(flat(value) if isinstance(value, dict) else {str(key): value})
    return found


def write_all(root):
    """Both benchmarks, two questions a subtask, videos of one of them in a zip file."""
    for subtask in BENCHMARKS["tvbench"].counts:
        rows = [tvbench_row(start=0.0, end=1.0), tvbench_row("b.mp4", start=1.0, end=2.0)]
        open_forms = {
            "object_count": {"candidates": ["2", "1"], "answer": "1"},
            "action_localization": {
                "question": "When does the action 'x' occur?",
                "candidates": ["At the beginning.", "At the end."],
                "answer": "At the end.",
            },
        }
        rows = [{**row, **open_forms.get(subtask, {})} for row in rows]
        write_tvbench(root / "tvbench", {subtask: rows})
    write_zip(root / "tvbench" / "video" / "action_count.zip", {"clip.mp4": b"video"})
    for file in BENCHMARKS["tomato"].layout.questions.values():
        rows = [tomato_row(), tomato_row("0002-00", demonstration_type="object")]
        write_tomato(root / "tomato", {Path(file).stem: rows})
    return root


@pytest.mark.parametrize(
    ("group", "subtasks"),
    [
        ("mapflow_tvbench", list(BENCHMARKS["tvbench"].counts)),
        ("mapflow_tomato", list(BENCHMARKS["tomato"].counts)),
        ("mapflow_tvbench_open", list(BENCHMARKS["tvbench_open"].counts)),
        ("mapflow_motion", ["direction", "antonym", "sequence", "count", "scene"]),
    ],
)
def test_groups_load_offline(load, tmp_path, group, subtasks):
    tasks = load(group, write_all(tmp_path))
    assert set(tasks) == {f"{group}_{subtask}" for subtask in subtasks}
    for name, task in tasks.items():
        documents = list(task.test_docs())
        assert len(documents) == (64 if group == "mapflow_motion" else 2)
        for document in documents:
            (video,) = task.config.doc_to_visual.whole(document)
            question = video.question
            assert video == question.clip.path and question.task == name
            assert task.doc_to_target(document) == question.target_text
            assert question.stem in task.doc_to_text(document)
            scores = task.process_results(document, [question.target_text])
            assert scores["accuracy"] == 1.0 and scores["answer"]["valid"]
            assert set(scores) <= set(task.aggregation())


ASKED = {  # task -> the text of its first question
    "mapflow_tvbench_action_count": "Question: Which way?\nOptions:\n(A) Left.\n(B) Right.\n"
    "Answer with the option's letter from the given choices directly and only give the best"
    " option.",
    "mapflow_tomato_count": "Question: How many?\nOptions:\n(A) 1\n(B) 2\n(C) 3\n"
    "Answer with the option's letter from the given choices directly and only give the best"
    " option.",
    "mapflow_tvbench_open_object_count": "Carefully watch the video and pay attention to the cause"
    " and sequence of events, the detail and movement of objects, and the action and pose of"
    " persons. Based on your observations, answer the question concisely.\nQuestion: Which way?\n"
    "Complete this sentence and write nothing else: The number of moving objects is …",
}


@pytest.mark.parametrize("name", ASKED)
def test_what_other_models_are_asked(load, tmp_path, monkeypatch, name):
    """Each word of the text, a plain path (`type(path) is str` in some models), one user turn."""
    task = load(name, write_all(tmp_path))[name]
    document = task.test_docs()[0]
    assert task.doc_to_text(document) == ASKED[name]
    (path,) = task.doc_to_visual(document)
    assert type(path) is str and path.endswith("blank-1.mp4")
    (turn,) = task.config.doc_to_messages(document)
    assert turn["role"] == "user"
    video, text = turn["content"]
    assert video == {"type": "video", "url": path}
    assert text == {"type": "text", "text": ASKED[name]}
    kwargs = task.config.generation_kwargs
    assert kwargs == {"max_new_tokens": 1024, "until": [], "do_sample": False, "temperature": 0.0}
    (answer,) = task.process_results(document, ["B"]).values()
    assert answer["valid"] is None and answer["prediction"] == NOT_ASKED and answer["error"]


def test_the_benchmarks_own_wording_begins_with_its_system_text(load, tmp_path, monkeypatch):
    task = load("mapflow_tomato_count", write_all(tmp_path))["mapflow_tomato_count"]
    monkeypatch.setenv("MAPFLOW_PROTOCOL", "official")
    text = task.doc_to_text(task.test_docs()[0])
    begin = "You are an expert in understanding dynamics of objects.\nYou will be provided with 16"
    assert text.startswith(begin) and "{'A': '1', 'B': '2', 'C': '3'}" in text


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("one", True),
        ("One.", True),
        ("1", True),
        ("The number of moving objects is 1.", True),
        ("the number of moving objects is one, a cube", True),
        ("<think>two?</think> one", True),
        ("two", False),
        ("The number of moving objects is two", False),
        ("ones", False),
        ("", False),
    ],
)
def test_open_answers_of_other_models(load, tmp_path, answer, right, monkeypatch):
    name = "mapflow_tvbench_open_object_count"
    task = load(name, write_all(tmp_path))[name]
    scores = task.process_results(task.test_docs()[0], [answer])
    assert scores["accuracy"] == right and scores["answer"]["valid"] == bool(answer)


def test_clips_of_one_file_keep_their_bounds(load, tmp_path):
    task = load("mapflow_tvbench_action_sequence", write_all(tmp_path))[
        "mapflow_tvbench_action_sequence"
    ]
    videos = [task.config.doc_to_visual.whole(document)[0] for document in task.test_docs()]
    clips = [video.question.clip for video in videos]
    assert [(clip.start, clip.end) for clip in clips] == [(0.0, 1.0), (1.0, 2.0)]


def test_a_zipped_video_is_unpacked_when_it_is_read(load, tmp_path):
    task = load("mapflow_tvbench_action_count", write_all(tmp_path))["mapflow_tvbench_action_count"]
    (video,) = task.config.doc_to_visual.whole(task.test_docs()[0])
    assert not Path(video).exists()
    unpack_clip(video.question.clip)
    assert Path(video).read_bytes() == b"video"


@pytest.mark.parametrize(
    ("subtask", "reason"),
    [
        ("action_count", r"^tvbench/action_count/0000: field 'video'"),
        ("object_count", r"object_count\.json: no such question file$"),
    ],
)
def test_a_task_that_cannot_be_loaded_says_why(load, tmp_path, monkeypatch, subtask, reason):
    """lmms-eval tries five times and wraps the reason; it is one of ours underneath."""
    from tenacity import RetryError

    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _seconds: None)
    write_tvbench(tmp_path / "tvbench", {"action_count": [tvbench_row("../../etc/passwd")]})
    with pytest.raises(RetryError) as wrapped:
        load(f"mapflow_tvbench_{subtask}", tmp_path)
    cause = wrapped.value.last_attempt.exception()
    assert isinstance(cause, MapflowError) and re.search(reason, str(cause))


def test_the_protocol_is_read_when_a_question_is_built(load, tmp_path, monkeypatch):
    task = load("mapflow_tomato_count", write_all(tmp_path))["mapflow_tomato_count"]
    document = task.test_docs()[0]
    whole = task.config.doc_to_visual.whole
    assert whole(document)[0].question.max_new_tokens == 1
    monkeypatch.setenv("MAPFLOW_PROTOCOL", "official")
    question = whole(document)[0].question
    assert (question.protocol, question.n_frames, question.max_new_tokens) == ("official", 16, 1024)
    assert process_results(document, ["The answer is B."])["accuracy"] == 1.0
    monkeypatch.setenv("MAPFLOW_PROTOCOL", "none")
    with pytest.raises(MapflowError, match="no protocol 'none'"):
        whole(document)


def test_lmms_eval_aggregates_macro_micro_and_demonstrations(load_nested, tmp_path):
    """lmms-eval's group row against counting by hand: unequal subtasks, one failed question."""
    from lmms_eval.evaluator_utils import consolidate_group_results

    counted = {}
    for size, (subtask, file) in enumerate(BENCHMARKS["tomato"].layout.questions.items(), 1):
        kinds = ["human" if number % 2 else "object" for number in range(size)]
        write_tomato(
            tmp_path, {Path(file).stem: [tomato_row(demonstration_type=kind) for kind in kinds]}
        )
        answers = ["B" if number % 3 else "C" for number in range(size)]
        if size == 6:
            answers[5] = NOT_ASKED
        counted[f"mapflow_tomato_{subtask}"] = list(zip(kinds, answers, strict=True))
    nested = load_nested("mapflow_tomato", tmp_path)
    results = defaultdict(dict)
    for name, task in flat(nested).items():
        values = defaultdict(list)
        for document, (_, answer) in zip(task.test_docs(), counted[name], strict=True):
            for metric, value in task.process_results(document, [answer]).items():
                values[metric].append(value)
        for metric, own in values.items():
            results[name][f"{metric},none"] = task.aggregation()[metric](own)
            results[name][f"{metric}_stderr,none"] = "N/A"
        results[name]["samples"] = len(counted[name])
    group = consolidate_group_results(results, defaultdict(str), nested)[0]["mapflow_tomato"]

    asked = {
        name: [pair for pair in pairs if pair[1] != NOT_ASKED] for name, pairs in counted.items()
    }
    everything = [pair for pairs in asked.values() for pair in pairs]

    def right(pairs):
        return sum(answer == "B" for _, answer in pairs) / len(pairs)

    assert group["accuracy,none"] == pytest.approx(sum(map(right, asked.values())) / 6)
    assert group["micro,none"] == pytest.approx(right(everything))
    for kind in ("human", "object"):
        assert group[f"{kind},none"] == pytest.approx(
            right([pair for pair in everything if pair[0] == kind])
        )
    assert json.dumps(group["micro,none"])  # a plain number to whoever writes it down


def test_invalid_answers_are_wrong_and_counted(load, tmp_path):
    task = load("mapflow_tvbench_action_count", write_all(tmp_path))["mapflow_tvbench_action_count"]
    document = task.test_docs()[0]
    right = ["B", "b", "(B)", "The answer is (B).", "Right.", "<think>(A)?</think>\n\nB"]
    wrong, invalid = ["A", "It moves left."], ["4", "", "(A) or (B)"]
    answers = [*right, *wrong, *invalid, NOT_ASKED]
    scored = [task.process_results(document, [answer]) for answer in answers]
    assert [score.get("accuracy") for score in scored] == [*[1.0] * 6, *[0.0] * 5, None]
    assert [score["answer"]["valid"] for score in scored] == [*[True] * 8, *[False] * 3, None]
    assert valid_answer_rate([score["answer"] for score in scored]) == pytest.approx(8 / 11)


@pytest.mark.parametrize("group", ["mapflow_tvbench", "mapflow_tomato", "mapflow_tvbench_open"])
def test_groups_say_both_averages(load_nested, tmp_path, group):
    (config,) = [key.config for key in load_nested(group, write_all(tmp_path))]
    averages = {entry["metric"]: entry for entry in config["aggregate_metric_list"]}
    assert (
        averages["accuracy"]["aggregation"] == "mean"
        and averages["accuracy"]["weight_by_size"] is False
    )
    assert averages["micro"]["aggregation"] is pooled


def test_every_name_is_a_task_or_a_group_and_no_other(manager):
    groups = {one.task for one in BENCHMARKS.values()}
    tasks = {f"{one.task}_{subtask}" for one in BENCHMARKS.values() for subtask in one.counts}
    assert set(manager.all_groups) == groups and set(manager.all_subtasks) == tasks


METRICS = {
    "mapflow_motion": ["accuracy", "answer"],
    "mapflow_tvbench": ["accuracy", "micro", "answer"],
    "mapflow_tvbench_open": ["accuracy", "micro", "answer"],
    "mapflow_tomato": ["accuracy", "micro", "human", "object", "simulated", "answer"],
}


@pytest.mark.parametrize("group", METRICS)
def test_metrics_of_tasks_and_groups(load_nested, tmp_path, group):
    nested = load_nested(group, write_all(tmp_path))
    (config,) = [key.config for key in nested]
    averages = [entry["metric"] for entry in config["aggregate_metric_list"]]
    assert averages == [name for name in METRICS[group] if name != "answer"]
    assert config["metadata"] == {"version": 1.0}
    for task in flat(nested).values():
        assert [entry["metric"] for entry in task.config.metric_list] == METRICS[group]
        assert all(entry["higher_is_better"] for entry in task.config.metric_list)
        assert task.config.metadata == {"version": 1.0}
        assert task.config.output_type == "generate_until"


def test_task_files_are_written_once_and_mended(tmp_path, monkeypatch):
    monkeypatch.setenv("MAPFLOW_CACHE", str(tmp_path))
    folder = write_task_files()
    before = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert write_task_files() == folder
    assert {file.name: file.stat().st_mtime_ns for file in folder.iterdir()} == before
    (folder / "motion.yaml").write_text("group: other")
    (folder / "mapflow.tasks.lmms_functions.py").write_text("raise SystemExit")
    assert write_task_files() == folder
    assert {file.name for file in folder.iterdir()} == set(before)
    assert "mapflow_motion" in (folder / "motion.yaml").read_text()
    assert [file.name for file in folder.parent.iterdir()] == [folder.name]


def test_task_files_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MAPFLOW_CACHE", str(tmp_path / "file"))
    with pytest.raises(MapflowError, match=r"cannot be written.*set MAPFLOW_CACHE"):
        write_task_files()


def foreign_texts(prompt, kind):
    return [part.text for part in split_prompt(prompt) if part.kind == kind]


def test_lmms_evals_own_prompts(monkeypatch):
    """The two tasks that the paper's appendix uses, as lmms-eval words them."""
    monkeypatch.setitem(
        sys.modules, "decord", SimpleNamespace(VideoReader=None, cpu=None)
    )  # they only import it
    longvideobench = importlib.import_module("lmms_eval.tasks.longvideobench.utils")
    videomme = importlib.import_module("lmms_eval.tasks.videomme.utils")
    post = {"pre_prompt": "", "post_prompt": "Answer with the option's letter.\n"}
    doc = {
        "question": "What does he do?",
        **{f"option{i}": text for i, text in enumerate(["sit", "run", "N/A", "N/A", "N/A"])},
    }
    prompt = longvideobench.longvideobench_doc_to_text(doc, post)
    assert foreign_texts(prompt, "option") == ["A. sit", "B. run"] and foreign_texts(
        prompt, "stem"
    ) == ["What does he do?"]
    doc = {
        "question": "What does he do?",
        "options": ["A. Sit.", "B. Run.", "C. Eat.", "D. Not known."],
    }
    prompt = videomme.videomme_doc_to_text(
        doc, {"post_prompt": "\nAnswer with the option's letter."}
    )
    assert foreign_texts(prompt, "option") == doc["options"] and foreign_texts(prompt, "stem") == [
        "What does he do?"
    ]


def test_a_cache_of_tables_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "file" / "datasets")
    with pytest.raises(MapflowError, match=r"cannot be written .*: set HF_HOME to another folder"):
        check_table_cache()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "new" / "datasets")
    check_table_cache()

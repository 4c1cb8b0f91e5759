"""Questions by task name, without lmms-eval and without environment variables."""

import subprocess
import sys

import pytest

from mapflow.results.contract.errors import MapflowError
from mapflow.tasks.benchmark import chance_level
from mapflow.tasks.registry import BENCHMARKS, load_questions

from .folders import tvbench_row, write_tvbench


def test_a_benchmark_or_some_subtasks_each_once():
    whole = load_questions("mapflow_motion")
    assert len(whole) == sum(BENCHMARKS["motion"].counts.values())
    assert len({question.question_id for question in whole}) == len(whole)
    some = load_questions(
        " mapflow_motion_count,mapflow_motion_scene, mapflow_motion_count", limit=2
    )
    assert [one.question_id for one in some] == [
        *("motion/count/0000", "motion/count/0001"),
        *("motion/scene/0000", "motion/scene/0001"),
    ]


def test_chance_of_the_bundled_benchmark():
    level = 100 * chance_level(load_questions("mapflow_motion"))
    assert level == pytest.approx(BENCHMARKS["motion"].chance_micro, abs=0.005)


@pytest.mark.parametrize(
    ("tasks", "options", "message"),
    [
        ("mapflow_moton", {}, "unknown task 'mapflow_moton'; benchmarks: mapflow_longvideobench, "),
        (" ,", {}, "no task named"),
        ("mapflow_motion", {"limit": 0}, "limit 0 must be at least 1 question"),
        ("mapflow_motion", {"protocol": "offical"}, "no protocol 'offical'; it has paper"),
    ],
)
def test_mistakes_say_the_value_and_the_remedy(tasks, options, message):
    with pytest.raises(MapflowError, match=message):
        load_questions(tasks, **options)


def test_the_protocol_is_in_the_question(tmp_path, monkeypatch):
    monkeypatch.setenv("MAPFLOW_PROTOCOL", "paper")
    write_tvbench(tmp_path, {"action_count": [tvbench_row()]})
    (question,) = load_questions("mapflow_tvbench_action_count", "official", tmp_path)
    assert (question.protocol, question.n_frames, question.max_new_tokens) == ("official", 16, 100)


def test_an_answer_without_a_word_has_no_open_form(tmp_path):
    row = tvbench_row(candidates=[".", "x"], answer=".")
    write_tvbench(tmp_path, {"action_antonym": [row]})
    with pytest.raises(MapflowError, match="tvbench_open/action_antonym/0000: no open form"):
        load_questions("mapflow_tvbench_open_action_antonym", data_dir=tmp_path)


def test_neither_torch_nor_lmms_eval_is_needed():
    code = (
        "import sys; from mapflow.tasks.registry import load_questions;"
        "load_questions('mapflow_motion');"
        "sys.exit(any(name in sys.modules for name in ('torch', 'datasets', 'lmms_eval')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""Prompts against those of the released code, byte for byte, up to where the model goes on.

The goldens are read from `open_ended_prompts.json`: questions of every open-ended subtask.
"""

import json
from types import SimpleNamespace

import pytest
import torch

from mapflow.model_adapters.families.internvl.model import InternVLVideo
from mapflow.model_adapters.families.llava.model import LlavaVideo
from mapflow.tasks.data_folder import DataFolder
from mapflow.tasks.registry import BENCHMARKS

from .folders import tvbench_row, write_tvbench


def rendered(question, family):
    """The conversation of a family as text; the video is its placeholder, once per video."""
    model = object.__new__(family)
    if family is LlavaVideo:
        model.network = SimpleNamespace(pooling_shape=(8, 1, 1))
        model.placeholder = lambda: "<image>"
    else:
        model.network = SimpleNamespace(tokens_per_frame=1)
    vision = {"pixel_values": torch.zeros(8, 1)}
    return "".join(piece.text for piece in model.pieces(question, vision, ()))


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

"""The bundled checkpoints on the bundled clips, from video file to letter, through the adapter.

The model with planted pathways is the positive control: its pathways are known, so the instrument
must find these. The tests ask a few questions of each subtask; `make demo` asks all.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest

from mapflow.model_adapters.families.llava.model import LlavaVideo
from mapflow.model_adapters.inference.answering import answer
from mapflow.model_adapters.interventions import parse_intervention
from mapflow.model_adapters.mini import planted
from mapflow.tasks.motion.scenes import SUBTASKS
from mapflow.tasks.registry import load_questions

MINI = Path(planted.__file__).parent
EACH = 6
MAX_BYTES = 16 * 2**20


@cache
def accuracies(checkpoint: str, *expressions: str) -> dict[str, float]:
    """Share of right answers under each intervention."""
    model = LlavaVideo.load(MINI / checkpoint, dtype="float32")
    interventions = [parse_intervention(expression) for expression in expressions]
    right = dict.fromkeys(expressions, 0)
    questions = [question for subtask in SUBTASKS for question in first_questions(subtask)]
    for start in range(0, len(questions), EACH):
        prepared = [model.prepare(question) for question in questions[start : start + EACH]]
        for records in answer(model, prepared, interventions):
            for expression, record in zip(expressions, records, strict=True):
                right[expression] += bool(record.correct)
    return {expression: count / len(questions) for expression, count in right.items()}


def first_questions(subtask: str) -> list:
    return load_questions(f"mapflow_motion_{subtask}", limit=EACH)


def test_planted_pathways_carry_everything_and_nothing_else_does():
    cuts = (f"cross-frame@{planted.RANGES.cross_frame}", "video->question", "question->last")
    scores = accuracies(
        "pathways", "full", "effective", "effective-strict", "video->last", "random", *cuts
    )
    for kept in ("full", "effective", "effective-strict", "video->last"):
        assert scores[kept] >= 0.95, kept
    for cut in ("random", *cuts):
        assert scores[cut] <= 0.8, cut


def test_the_natural_model_answers_and_reads_video_straight_into_the_last_token():
    scores = accuracies("natural", "full", "video->last")
    assert scores["full"] >= 0.95
    assert scores["video->last"] <= 0.8


@pytest.mark.parametrize("checkpoint", ["natural", "pathways"])
def test_checkpoints_are_small_and_say_how_they_were_trained(checkpoint):
    assert (MINI / checkpoint / "model.safetensors").stat().st_size <= MAX_BYTES
    metrics = json.loads((MINI / checkpoint / "metrics.json").read_text())
    assert metrics["settings"]["pathways"] == (checkpoint == "pathways")
    assert metrics["accuracy"]["full"]["all"] >= 0.97
    whole = metrics.get("continued_run", metrics)
    assert whole["steps"] > 1000 and whole["seconds"] > 60

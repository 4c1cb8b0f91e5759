"""How far a probability moves when only the company changes in which a question is asked.

A run in float32 asks every question alone, so its records do not depend on `batch_size` at all (`test_kill_resume.py`
compares them bit by bit). What is left is bounded here: another set of interventions in one run, and batches in bfloat16.
There a logit of 16 to 32 has steps of 1/8, so the lead of one option over another may move by two steps and an answer
may turn only where the lead is no larger than that.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from mapflow.model_adapters.families.llava.model import LlavaVideo
from mapflow.model_adapters.inference.answering import answer
from mapflow.model_adapters.interventions import parse_interventions
from mapflow.model_adapters.mini import planted
from mapflow.tasks.registry import load_questions

CHECKPOINT = Path(planted.__file__).parent / "natural"
INTERVENTIONS = parse_interventions(["full;random:ratio=0.3;video->last"])
MARGIN = {"float32": 1e-4, "bfloat16": 0.25}


@pytest.fixture(scope="module", params=MARGIN)
def asked(request):
    """The precision, a model in it, a few questions, and what it answers when each is asked alone."""
    model = LlavaVideo.load(CHECKPOINT, dtype=request.param)
    prepared = [model.prepare(one) for one in load_questions("mapflow_motion", limit=1)][:3]
    return (
        request.param,
        model,
        prepared,
        [answer(model, [one], INTERVENTIONS)[0] for one in prepared],
    )


def assert_close(dtype, found, expected) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.key == other.key
        assert one.margin == pytest.approx(other.margin, abs=MARGIN[dtype])
        assert (one.prediction == other.prediction) or other.margin <= MARGIN[dtype]
        assert (one.edges_kept, one.edges_total) == (other.edges_kept, other.edges_total)


def test_the_same_question_asked_again_gives_the_same_record(asked):
    _, model, prepared, alone = asked
    assert answer(model, prepared[:1], INTERVENTIONS)[0] == alone[0]


def test_a_batch_moves_margins_within_the_precisions_own_noise(asked):
    dtype, model, prepared, alone = asked
    for found, expected in zip(answer(model, prepared, INTERVENTIONS), alone, strict=True):
        assert_close(dtype, found, expected)


def test_other_interventions_in_the_same_run_move_margins_within_that_noise_too(asked):
    dtype, model, prepared, alone = asked
    for one, expected in zip(prepared, alone, strict=True):
        assert_close(
            dtype, [answer(model, [one], [single])[0][0] for single in INTERVENTIONS], expected
        )

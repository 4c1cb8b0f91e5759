"""How far a probability moves when other questions or interventions are computed with it.

In float32 each question is computed alone, so records do not depend on `batch_size`
(`test_kill_resume.py` compares them bit by bit). These tests bound the two remaining effects:
another set of interventions, and batches in bfloat16. There a logit of 16 to 32 has steps of 1/8.
The margin between two options may move by two steps, and an answer may change only if its margin is
no larger.
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
    """Precision, model, a few questions, and the answers to each question asked alone."""
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

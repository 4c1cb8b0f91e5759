"""Samples: which questions an analysis measures, by the answer of the baseline run.

The paper's curves keep the questions that the model answers right without a cut: the decoded text
of the most probable token equals that of the right answer's, regardless of case (Section 3). Every
model keeps its own set.
"""

from __future__ import annotations

from typing import Literal, get_args

from mapflow.model_adapters.interventions import Intervention
from mapflow.model_adapters.video_llm import Prepared, VideoLLM

Samples = Literal["correct", "wrong", "all"]
SAMPLES: tuple[Samples, ...] = get_args(Samples)


def baseline_answer(model: VideoLLM, prepared: Prepared) -> int | None:
    """The token that the baseline run answers; None if its logits are not finite."""
    (inputs,) = model.embed([prepared])
    compiled = model.compile(Intervention(), prepared, inputs)
    (logits,) = model.decoder.answer_logits([inputs], [[compiled]])
    return int(logits.argmax()) if bool(logits.isfinite().all()) else None


def is_right(model: VideoLLM, prepared: Prepared, token: int) -> bool:
    """Whether a first answer token is right: its text is that of the right one, in any case.

    Options are compared by their text, as some questions list the right one twice.
    """
    question, text = prepared.question, model.text([token]).lower()
    if isinstance(question.target, str):
        return model.begins_right(prepared, token)
    letters = [letter.lower() for letter in question.letters]
    return text in letters and (
        question.options[letters.index(text)] == question.options[question.target]
    )


def why_left_out(samples: Samples, right: bool) -> str | None:
    """The reason to leave a question out; None if it is measured."""
    if samples == "all" or right == (samples == "correct"):
        return None
    # Records keep these words (for the baseline run), so that readers of earlier folders know them.
    return f"answered {'right' if right else 'wrong'} by the plain run"

"""Every golden of the LLaVA family, loaded once; `golden.py` says what a golden is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from golden import Family, Golden, Sample, goldens

from mapflow.model_adapters.families.llava.model import LlavaVideo
from mapflow.model_adapters.video_llm import Prepared
from mapflow.results.contract.question import Clip, Prompt, Question

__all__ = ["Golden", "Sample", "completion_question", "llava_goldens"]


def llava_goldens(root: Path) -> tuple[Golden, ...]:
    """All goldens of this family under `root`, each model loaded only when asked for."""
    return goldens(root, LLAVA)


def _load(folder: Path) -> LlavaVideo:
    return LlavaVideo.load(folder, dtype=torch.float32)


def _encode(
    model: LlavaVideo, facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray], question_id: str
) -> Prepared:
    question = completion_question(facts, question_id, " USER: <image>\n USER: ", " ASSISTANT:")
    return model.encode(question, arrays["frames"])


LLAVA = Family("PllavaForConditionalGeneration", _load, _encode)


def completion_question(
    facts: Mapping[str, Any], question_id: str, video_turn: str, assistant: str
) -> Question:
    """The question whose rendering, under the paper's protocol, is the golden's prompt.

    The wording is cut out of the golden's own prompt, so that any system text and instruction will
    do. `video_turn` is what the family's conversation has between the system text and the question,
    `assistant` what is before the answer."""
    opening, turn = facts["prompt"].split(video_turn)
    turn, answer_prefix = turn.split(assistant)
    stem, instruction = facts["question_without_options"], turn.removeprefix(facts["question"])
    texts = sorted([facts["answer"], *facts["false_options"]])
    options = tuple(re.sub(r"^\(\w\) ", "", text) for text in texts)
    label = facts["question"].partition(stem)[0]
    prompt = Prompt(
        opening, label, "\nOptions:\n", "({letter}) {text}", "\n", instruction, answer_prefix
    )
    return Question(
        question_id=question_id,
        video_id=question_id,
        task="golden",
        clip=Clip("golden.mp4"),
        stem=stem,
        options=options,
        target=texts.index(facts["answer"]),
        protocol="paper",
        prompts={"completion": prompt},
    )

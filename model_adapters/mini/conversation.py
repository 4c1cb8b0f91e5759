"""What the model is shown and taught to say: choices, open questions and captions, as texts of named pieces."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

from mapflow.model_adapters.mini.planted import ANSWER, QUESTION, SYSTEM, TEMPLATE
from mapflow.model_adapters.mini.tokenizer import IMAGE_TOKEN
from mapflow.results.contract.question import LETTERS, Clip, Prompt, Question
from mapflow.tasks.documents import read_protocols
from mapflow.tasks.motion.captions import DESCRIBE, caption
from mapflow.tasks.motion.scenes import Ask, Scene

Format = Literal["caption", "open", "choice"]
FORMATS: tuple[Format, ...] = get_args(Format)
END_OF_TEXT = "</s>"


class Piece(NamedTuple):
    """A stretch of the conversation and the segment that its tokens belong to."""

    segment: int
    text: str


def load_prompt(protocol: str = "paper") -> Prompt:
    """The benchmark's wording for completion models."""
    return read_protocols("motion")[protocol]["prompts"]["completion"]


def converse(prompt: Prompt, scene: Scene, ask: Ask, fmt: Format) -> list[Piece]:
    """A whole conversation of the LLaVA family, answer and end of text included.

    The pieces' texts joined are `{system}\\n USER: <image>\\n USER: {turn} ASSISTANT:{prefix}{answer}</s>`. The prompt's last
    token is still part of the template here (`samples` names it).
    """
    pieces = [Piece(SYSTEM, f"{prompt.system} USER: {IMAGE_TOKEN}"), Piece(TEMPLATE, "\n USER: ")]
    if fmt == "caption":
        pieces += [Piece(QUESTION, DESCRIBE), Piece(TEMPLATE, " ASSISTANT:")]
        return [*pieces, Piece(ANSWER, f" {caption(scene)}{END_OF_TEXT}")]
    if fmt == "open":
        pieces += [
            Piece(QUESTION, f"{prompt.stem_label}{ask.stem}"),
            Piece(TEMPLATE, " ASSISTANT:"),
        ]
        return [*pieces, Piece(ANSWER, f" {ask.answer}.{END_OF_TEXT}")]
    for part in as_question(prompt, ask).user_turn("completion"):
        pieces.append(Piece(TEMPLATE if part.kind == "template" else QUESTION, part.text))
    pieces.append(Piece(TEMPLATE, f" ASSISTANT:{prompt.answer_prefix}"))
    return [*pieces, Piece(ANSWER, f"{LETTERS[ask.target]}) {ask.answer}{END_OF_TEXT}")]


def as_question(prompt: Prompt, ask: Ask) -> Question:
    """The ask in the terms that benchmarks and adapters share, so that training cannot drift from evaluation."""
    return Question(
        question_id="", video_id="", task=ask.subtask, clip=Clip(""), stem=ask.stem, options=ask.options,
        target=ask.target, protocol="paper", prompts={"completion": prompt},
    )  # fmt: skip

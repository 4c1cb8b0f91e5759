"""A question as a checkpoint's own chat template renders it, in pieces that know what they are.

The template is run twice, once with the question and once with a mark in its place, so that what stands before and
after the question is known to the character and nothing has to be searched for in the rendered text. Knows no model:
the template, and the token that stands for a video in it, are the checkpoint's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mapflow.model_adapters.conversation import Text, user_pieces
from mapflow.model_adapters.interventions import Segment
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import PromptStyle, Question

MARK = "\ue000"  # a private-use character: no template holds it and none changes it


@dataclass(frozen=True)
class Chat:
    """The rendered conversation: `head`, the video's placeholder, `tail` with the question and the begun answer."""

    head: str
    placeholder: str
    tail: tuple[Text, ...]

    @property
    def text(self) -> str:
        return self.head + self.placeholder + "".join(piece.text for piece in self.tail)


def render(processor: Any, question: Question, style: PromptStyle) -> Chat:
    """One user turn with the video and then the question, behind the protocol's system text if it has one.

    Raises MapflowError for a template that changes the question's wording or takes no video before it, and for a
    question that contains a placeholder.
    """
    prompt = question.prompt(style)
    pieces = user_pieces(question, style)
    wording = "".join(piece.text for piece in pieces)
    placeholder: str = processor.video_token
    for token in {placeholder, getattr(processor, "image_token", placeholder)}:
        if token in wording:
            raise MapflowError(
                f"question {question.question_id!r} contains {token!r} in its text; reword it"
            )
    before, _, after = _rendered(processor, prompt.system, MARK).partition(MARK)
    if before.count(placeholder) != 1 or placeholder in after:
        raise MapflowError(
            f"the checkpoint's chat template does not put one {placeholder!r} before the question: {before!r}"
        )
    rendered = _rendered(processor, prompt.system, wording)
    if rendered == before + wording.strip() + after:
        pieces = _stripped(pieces)
    elif rendered != before + wording + after:
        raise MapflowError(
            f"the checkpoint's chat template changes the wording of question {question.question_id!r}"
        )
    head, _, between = before.partition(placeholder)
    template = Segment("template")
    tail = [Text(between, template), *pieces, Text(after + prompt.answer_prefix, template)]
    return Chat(head, placeholder, tuple(piece for piece in tail if piece.text))


def _rendered(processor: Any, system: str, wording: str) -> str:
    turn = {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": wording}]}
    opening = [{"role": "system", "content": [{"type": "text", "text": system}]}] if system else []
    try:
        return processor.apply_chat_template(
            [*opening, turn], add_generation_prompt=True, tokenize=False
        )
    except Exception as error:  # templates raise what they like
        reason = " ".join(str(error).split())
        raise MapflowError(
            f"the checkpoint's chat template cannot render a question: {reason}"
        ) from error


def _stripped(pieces: list[Text]) -> list[Text]:
    """Without white space at either end of the whole, as some templates have it."""
    while pieces and not pieces[0].text.strip():
        pieces = pieces[1:]
    while pieces and not pieces[-1].text.strip():
        pieces = pieces[:-1]
    pieces = [Text(pieces[0].text.lstrip(), pieces[0].segment), *pieces[1:]]
    return [*pieces[:-1], Text(pieces[-1].text.rstrip(), pieces[-1].segment)]

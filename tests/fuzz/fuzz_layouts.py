"""Conversations cut anywhere: refused, or every token has exactly one name."""

from __future__ import annotations

from random import Random
from types import SimpleNamespace
from typing import Any

from mapflow.model_adapters.conversation import Text, Video, tokenize, user_pieces
from mapflow.model_adapters.interventions import Segment
from mapflow.results.contract.question import Clip, Prompt, Question

from .mutation import CHARACTERS, mutated

PLACEHOLDER = "<video>"
STEMS = [
    "Which way does the ball move?",
    "How many {letter} are <image> there?\n(A) none",
    "?",
    "日本 😀 (B)",
    PLACEHOLDER,
]
PIECES = [
    "Left.",
    "Right and {text}",
    "4",
    "",
    " ",
    "(A)",
    "\n",
    "USER:",
    "<video",
    "{0}",
    "ü\u0308",
]


class Cutter:
    """In place of a tokenizer: cuts text anywhere, names every token by its number; placeholders
    are usually whole. What it passes on is now and then not what it has cut.
    """

    all_special_ids = (2,)

    def __init__(self, random: Random) -> None:
        self._random = random
        self._cuts: dict[str, SimpleNamespace] = {}
        self.honest = True

    @property
    def backend_tokenizer(self) -> Cutter:
        return self

    def encode(self, text: str, add_special_tokens: bool) -> SimpleNamespace:
        """Tokens without a start token; the same for the same text."""
        assert not add_special_tokens
        if text not in self._cuts:
            self._cuts[text] = self._cut(text)
        return self._cuts[text]

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [f"<{one}>" for one in ids]

    def __call__(self, text: str) -> dict[str, list[int]]:
        random = self._random
        ids = [*[2] * int(random.random() * 3), *self.encode(text, add_special_tokens=False).ids]
        if random.random() < 0.05:
            self.honest = False
            at = 1 + int(random.random() * len(ids))
            ids = random.choice([[*ids, 2], ids[:-1], [*ids[:at], 3, *ids[at:]], [3, *ids]])
        return {"input_ids": ids}

    def _cut(self, text: str) -> SimpleNamespace:
        random, at = self._random, 0
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        respects = random.random() < 0.9
        while at < len(text):
            if respects and text.startswith(PLACEHOLDER, at):
                end, token = at + len(PLACEHOLDER), 1
            else:
                end, token = min(len(text), at + 1 + int(random.random() ** 2 * 5)), 4 + len(ids)
                if respects and (place := text.find(PLACEHOLDER, at, end + len(PLACEHOLDER))) >= 0:
                    end = min(end, place)
            offsets += [(at, end)] * (
                2 if random.random() < 0.03 else 1
            )  # bytes of one character share its offsets
            ids += [token] * (len(offsets) - len(ids))
            at = end
        return SimpleNamespace(ids=ids, offsets=offsets)


def layouts(random: Random) -> Any:
    """A conversation is refused, or every token of it has exactly one name, and the name of a piece
    that it touches.
    """

    def text(corpus: list[str]) -> str:
        return mutated(random, corpus, [*CHARACTERS, PLACEHOLDER, "\n"])

    n_options = int(random.random() * 5)
    question = Question(
        question_id="q",
        video_id="v",
        task="t",
        clip=Clip("v.mp4"),
        stem=text(STEMS),
        options=tuple(text(PIECES) for _ in range(n_options)),
        target=int(random.random() * n_options) if n_options else "left",
        protocol="paper",
        prompts={
            "chat": Prompt(
                "",
                "Question: ",
                "\nOptions:\n",
                "({letter}) {text}",
                "\n",
                " Answer.",
                "",
                "Watch. ",
            )
        },
    )
    n_frames, per_frame = 1 + int(random.random() * 3), 1 + int(random.random() * 4)
    frames = tuple((Segment("frame", index), per_frame) for index in range(n_frames))
    pieces = [
        Text(text(["You help.", "a"]) or "a", Segment("system")),
        Video(PLACEHOLDER, frames),
        *user_pieces(question, "chat"),
        Text(text(["ASSISTANT:", "(", ""]), Segment("template")),
    ]
    cutter = Cutter(random)
    conversation = tokenize(cutter, pieces, question)  # pyright: ignore[reportArgumentType]
    assert cutter.honest
    layout, ids = conversation.layout, conversation.input_ids.tolist()
    names = [layout.segments[index] for index in layout.segment_of.tolist()]
    assert conversation.text == "".join(piece.text for piece in pieces)
    assert len(ids) == len(names) == len(layout) == int(layout.sizes.sum())
    assert len(set(layout.segments)) == len(layout.segments)
    assert names[-1] == Segment("last") and names.count(Segment("last")) == 1
    for index in range(n_frames):
        assert names.count(Segment("frame", index)) == per_frame
    first = names.index(Segment("frame", 0))
    assert [name.index for name in names[first : first + n_frames * per_frame]] == [
        index for index in range(n_frames) for _ in range(per_frame)
    ]
    assert all(
        (token == 1) == (name.kind == "frame") for token, name in zip(ids, names, strict=True)
    )
    assert all(Segment("option", index) in names for index in range(n_options))
    assert layout.true_option == (question.target if n_options else None)
    return layout

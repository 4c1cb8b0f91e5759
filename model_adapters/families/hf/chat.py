"""A question as a checkpoint's own chat template renders it, in pieces that know what they are.

The template is run twice, once with the question and once with a mark in its place, so that what stands before and
after the question is known to the character and nothing has to be searched for in the rendered text. Knows no model:
the template, and the token that stands for a video in it, are the checkpoint's.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from jaxtyping import Bool
from torch import Tensor

from mapflow.model_adapters.conversation import Text, check_options, owners, user_pieces
from mapflow.model_adapters.interventions import Segment, TokenLayout
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import PromptStyle, Question

MARK = "\ue000"  # a private-use character: no template holds it and none changes it
VIDEO = Segment("frame")  # which frame is decided by counting, not by characters


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


def chat_layout(
    chat: Chat,
    offsets: Sequence[tuple[int, int]],
    shown: Bool[Tensor, " n"],
    tokens_per_frame: Sequence[int],
    question: Question,
) -> TokenLayout:
    """The layout of the expanded chat.

    Args:
        offsets: each token's characters in the expanded text.
        shown: the tokens that hold the video's embeddings.
        tokens_per_frame: how many of those each frame has, in order.

    Raises MapflowError where an option has no token of its own, or where tokens and frames do not fit together.
    """
    tail_length = sum(len(piece.text) for piece in chat.tail)
    # The expanded text ends as the rendered one does; its length tells how long the video's part has become.
    video_length = offsets[-1][1] - tail_length - len(chat.head)
    pieces = [Text(chat.head, Segment("system")), Text(MARK * video_length, VIDEO), *chat.tail]
    pieces = [piece for piece in pieces if piece.text]
    owner = [piece.segment for piece in owners(pieces, offsets) if isinstance(piece, Text)]
    _check_video(owner, offsets, shown, tokens_per_frame, chat)
    ends = list(accumulate(tokens_per_frame))
    seen = 0
    runs: list[tuple[Segment, int]] = []
    for segment, is_shown in zip(owner, shown.tolist(), strict=True):
        if segment == VIDEO:
            segment = Segment("frame", min(bisect_right(ends, seen), len(ends) - 1))
            seen += is_shown
        runs.append((segment, 1))
    runs[-1] = (Segment("last"), 1)
    check_options(runs, question)
    true_option = question.target if isinstance(question.target, int) else None
    return TokenLayout.from_runs(runs, true_option)


def tokens_per_frame(
    shown: Bool[Tensor, " n"], vision: Mapping[str, Tensor], n_frames: int
) -> list[int]:
    """How many video tokens each frame has: as many for each, a remainder (a line end) with the last.

    `vision` tells where it differs: a temporal grid of another size than the number of source frames
    (`video_grid_thw`), or tokens that were dropped as too similar to the frame before (`video_compression_mask`).
    """
    grid = vision.get("video_grid_thw")
    frames = n_frames if grid is None else int(grid[0, 0])
    kept = vision.get("video_compression_mask")
    if kept is not None and kept.numel() % frames == 0:
        return kept.view(frames, -1).sum(1).tolist()
    each, rest = divmod(int(shown.sum()), frames)
    return [each] * (frames - 1) + [each + rest]


def _check_video(
    owner: Sequence[Segment],
    offsets: Sequence[tuple[int, int]],
    shown: Bool[Tensor, " n"],
    counts: Sequence[int],
    chat: Chat,
) -> None:
    strangers = [
        segment
        for segment, here in zip(owner, shown.tolist(), strict=True)
        if here and segment != VIDEO
    ]
    if strangers or list(offsets) != sorted(offsets):
        raise MapflowError(
            f"the processor's tokens do not lie where {chat.placeholder!r} stood in the rendered chat;"
            " this model needs an adapter of its own"
        )
    # Where time stamps part the video's tokens, a frame may end only there.
    total = int(shown.sum())
    positions = shown.nonzero().flatten()
    breaks = {0, total} | {i for i in range(1, total) if positions[i] != positions[i - 1] + 1}
    ends = set(accumulate(counts)) | {0}
    if sum(counts) != total or min(counts) < 0 or (len(breaks) > 2 and not breaks <= ends):
        raise MapflowError(
            f"{total} video tokens in {len(breaks) - 1} stretches do not make {len(counts)} frames;"
            " this model needs an adapter of its own"
        )

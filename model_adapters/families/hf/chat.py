"""A question rendered by a checkpoint's own chat template, and the layout of its tokens.

The template is run twice, with the question and with a mark in its place. This gives the exact text
before and after the question, so nothing is searched for in the rendered text.

A processor replaces the video's placeholder by a longer text: the video's tokens, often with time
stamps and separators. All of it is video. Text before a frame's tokens belongs to that frame, text
after the last frame to the last one, as in the authors' VideoLLaMA3 code. Otherwise a cut from
video to question would leave the time stamps as a path.

A `frame` segment is one step of the model's temporal grid. It covers several source frames if the
model merges frames (Qwen: two per temporal patch).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mapflow.model_adapters.conversation import (
    Text,
    check_options,
    offsets_of,
    owners,
    user_pieces,
)
from mapflow.model_adapters.interventions import Segment, TokenLayout
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import PromptStyle, Question

MARK = "\ue000"  # a private-use character, which templates neither contain nor change
VIDEO = Segment("frame")  # the frame is determined by counting tokens


@dataclass(frozen=True)
class Chat:
    """The rendered conversation: `head`, the video's placeholder, and `tail` with the question."""

    head: str
    placeholder: str
    tail: tuple[Text, ...]

    @property
    def text(self) -> str:
        return self.head + self.placeholder + "".join(piece.text for piece in self.tail)


def render(processor: Any, question: Question, style: PromptStyle) -> Chat:
    """Renders the protocol's system text, if any, and one user turn with video and question.

    Raises MapflowError if the template changes the question's wording or has no place for a video
    before it, and if the question contains a placeholder.
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
            f"the checkpoint's chat template does not put one {placeholder!r} before the question:"
            f" {before!r}"
        )
    rendered = _rendered(processor, prompt.system, wording)
    if rendered == before + wording.strip() + after:
        pieces = _stripped(pieces)
    elif rendered != before + wording + after:
        raise MapflowError(
            "the checkpoint's chat template changes the wording of question"
            f" {question.question_id!r}"
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
    except Exception as error:  # templates raise exceptions of any kind
        reason = " ".join(str(error).split())
        raise MapflowError(
            f"the checkpoint's chat template cannot render a question: {reason}"
        ) from error


def _stripped(pieces: list[Text]) -> list[Text]:
    """The pieces without white space at both ends, which some templates remove."""
    while pieces and not pieces[0].text.strip():
        pieces = pieces[1:]
    while pieces and not pieces[-1].text.strip():
        pieces = pieces[:-1]
    pieces = [Text(pieces[0].text.lstrip(), pieces[0].segment), *pieces[1:]]
    return [*pieces[:-1], Text(pieces[-1].text.rstrip(), pieces[-1].segment)]


def chat_layout(
    chat: Chat,
    text: str,
    received: Int[Tensor, " n"],
    tokenizer: PreTrainedTokenizerBase,
    shown: Bool[Tensor, " n"],
    tokens_per_frame: Sequence[int],
    question: Question,
) -> TokenLayout:
    """The layout of the chat after the processor has expanded it.

    Args:
        text: the expanded text, as the processor gave it to its tokenizer.
        received: the ids that the model receives.
        shown: whether a token holds a video embedding.
        tokens_per_frame: number of video embeddings of each frame, in order.

    Raises MapflowError if the text is not the chat, if the ids are not the text's, if an option has
    no token of its own, or if tokens and frames do not agree.
    """
    pieces = _expanded(chat, text, tokenizer)
    offsets = offsets_of(received.tolist(), text, tokenizer)
    owner = [piece.segment for piece in owners(pieces, offsets) if isinstance(piece, Text)]
    start_tokens = sum(offset == (0, 0) for offset in offsets)
    owner[:start_tokens] = [Segment("system")] * start_tokens  # also where the video comes first
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


def _expanded(chat: Chat, text: str, tokenizer: PreTrainedTokenizerBase) -> list[Text]:
    """The pieces of the expanded text: a start token as text, the chat's head, video and tail.

    Raises MapflowError if the processor changed anything but the placeholder.
    """
    head, tail = chat.head, "".join(piece.text for piece in chat.tail)
    known = (tokenizer.bos_token, tokenizer.cls_token, tokenizer.eos_token)
    starts = [start for start in known if isinstance(start, str) and start]
    added = next((s for s in starts if text.startswith(s) and not chat.text.startswith(s)), "")
    video_length = len(text) - len(added) - len(head) - len(tail)
    if not (text.startswith(added + head) and text.endswith(tail) and video_length > 0):
        pairs = enumerate(zip(reversed(text), reversed(chat.text), strict=False))
        place = next((i for i, (one, other) in pairs if one != other), 0) + 40
        raise MapflowError(
            f"the processor changes the rendered chat: {text[-place:][:60]!r} instead of"
            f" {chat.text[-place:][:60]!r}, so no token can be named; write an adapter for"
            " this model (model_adapters/README.md)"
        )
    pieces = [
        Text(added + head, Segment("system")),
        Text(MARK * video_length, VIDEO),
        *chat.tail,
    ]
    return [piece for piece in pieces if piece.text]


def tokens_per_frame(
    shown: Bool[Tensor, " n"], vision: Mapping[str, Tensor], n_frames: int, merge: int = 1
) -> list[int]:
    """Number of video tokens of each frame: equal, a remainder (a line end) goes to the last.

    `merge` is the side, in patches, of one video token.

    Exceptions are in `vision`: a temporal grid that differs from the number of source frames
    (`video_grid_thw`), and tokens dropped as too similar to the previous frame
    (`video_compression_mask`).
    """
    grid = vision.get("video_grid_thw")
    frames = n_frames if grid is None else int(grid[0, 0])
    kept = vision.get("video_compression_mask")
    if kept is not None and kept.numel() % frames == 0:
        return kept.view(frames, -1).sum(1).tolist()
    total = int(shown.sum())
    if grid is not None:
        # a model may merge steps of the grid further (Ernie 4.5 VL), which the counts show
        step = int(grid[0, 1:].prod()) // merge**2
        frames = total // step if step and total % step == 0 else frames
    each, rest = divmod(total, frames)
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
            f"the processor's video tokens are not at {chat.placeholder!r} of the rendered chat;"
            " write an adapter for this model (model_adapters/README.md)"
        )
    # If time stamps separate the video's tokens, a frame can end only there.
    total = int(shown.sum())
    positions = shown.nonzero().flatten()
    breaks = {0, total} | {i for i in range(1, total) if positions[i] != positions[i - 1] + 1}
    ends = set(accumulate(counts)) | {0}
    if sum(counts) != total or min(counts) < 0 or (len(breaks) > 2 and not breaks <= ends):
        raise MapflowError(
            f"{total} video tokens in {len(breaks) - 1} groups do not make {len(counts)} frames;"
            " write an adapter for this model (model_adapters/README.md)"
        )

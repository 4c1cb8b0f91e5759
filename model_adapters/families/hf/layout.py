"""A name for every token that a processor made of a chat, from the tokens' character offsets.

A processor puts a longer text in the place of the video's placeholder: the video's tokens, and for many models time
stamps and separators among them. All of that is the video: what stands before a frame's tokens belongs to that frame
and what follows the last frame's to the last, as in the paper's VideoLLaMA3 code. Or else a cut from video to question
would leave the time stamps as a way around.

A `frame` segment is one step of the model's temporal grid; where the model merges frames (Qwen: two into one temporal
patch), it stands for several source frames.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate

from jaxtyping import Bool
from torch import Tensor

from mapflow.model_adapters.conversation import Text, check_options, owners
from mapflow.model_adapters.families.hf.chat import MARK, Chat
from mapflow.model_adapters.interventions import Segment, TokenLayout
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import Question

VIDEO = Segment("frame")  # which frame is decided by counting, not by characters


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

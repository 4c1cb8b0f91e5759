"""The pathways of the bundled `pathways` model, as interventions of the instrument.

A training batch mixes prompts of different wording, so it shares one coarse segmentation: the
instrument's segments, with the whole question as one of them, and one more for the answer's tokens
and the padding. Interventions are compiled for these segments by the instrument; `token_masks`
spreads the result over a batch.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn.functional import pad

from mapflow.model_adapters.interventions import (
    Intervention,
    LayerSpan,
    PathwayRanges,
    Segment,
    TokenLayout,
    parse_intervention,
)

N_FRAMES = 8
GRID = 4
"""Tokens along each side of a frame."""

SEGMENTS = (
    Segment("system"),
    *(Segment("frame", index) for index in range(N_FRAMES)),
    Segment("template"),
    Segment("stem"),
    Segment("last"),
)
"""The segments of a prompt. The code of a position is an index into this tuple, or `ANSWER`."""

SYSTEM = 0
FRAMES = tuple(range(1, 1 + N_FRAMES))
TEMPLATE, QUESTION, LAST, ANSWER = range(1 + N_FRAMES, 5 + N_FRAMES)

RANGES = PathwayRanges(
    cross_frame=LayerSpan(2, 6),
    video_to_question=LayerSpan(2, 8),
    question_to_last=LayerSpan(9, 12),
)

FULL = Intervention()
EFFECTIVE = parse_intervention("effective")
PLANTED = parse_intervention(
    "effective+video->template+question->template+"
    + "+".join(f"frame[{index}]->question" for index in range(N_FRAMES - 1))
)
"""The policy enforced in training: `effective` without detours. Only three pathways remain.

Template positions attend neither to video nor to the question: the answer could travel through
them. The question attends to the last frame only: it could otherwise compare the frames
itself, without cross-frame attention.
"""


def ranges_yaml() -> str:
    """`RANGES` as the file `pathways.yaml` of a checkpoint folder."""
    spans = (f"{name}: {span}\n" for name, span in vars(RANGES).items())
    return "# Layers of the pathways that training planted (1-based, inclusive).\n" + "".join(spans)


def allowed_segments(
    intervention: Intervention, n_layers: int
) -> Bool[Tensor, "layer target source"]:
    """The segments that may attend to each other, compiled for `SEGMENTS` and extended by `ANSWER`.

    Answer positions follow the cuts of the last prompt position and attend freely to each other, as
    in generation.
    """
    layout = TokenLayout.from_runs((segment, 1) for segment in SEGMENTS)
    compiled = intervention.compile(layout, n_layers, RANGES)
    prompt = torch.as_tensor(compiled.allowed)
    allowed = pad(prompt, (0, 1, 0, 1), value=True)
    allowed[:, ANSWER, :ANSWER] = prompt[:, LAST]
    return allowed


def segment_codes(
    n_prefix: int, segments: Int[Tensor, "rows suffix"]
) -> Int[Tensor, "rows position"]:
    """The segment code of every position. `segments` are those after the video."""
    head = [SYSTEM] * n_prefix + [frame for frame in FRAMES for _ in range(GRID * GRID)]
    before = torch.tensor(head, device=segments.device).expand(len(segments), -1)
    return torch.cat([before, segments.long()], 1)


def prompt_layouts(codes: Int[Tensor, "rows position"]) -> list[TokenLayout]:
    """The layout of each prompt, without answer and padding."""
    return [
        TokenLayout.from_runs((SEGMENTS[code], 1) for code in row if code != ANSWER)
        for row in codes.tolist()
    ]


def token_masks(
    allowed: Bool[Tensor, "kind layer target source"],
    kind_of: Int[Tensor, " batch"],
    segment_of: Int[Tensor, "batch n"],
) -> list[Bool[Tensor, "batch 1 n n"]]:
    """The causal mask of every layer, each prompt of the batch under its own kind of intervention.

    Batched counterpart of the instrument's `segment_masks.token_mask`, on the device of
    `segment_of`.
    """
    n, n_segments = segment_of.shape[1], allowed.shape[-1]
    causal = torch.ones(n, n, dtype=torch.bool, device=segment_of.device).tril()
    target, source = segment_of[:, :, None], segment_of[:, None, :]
    pair = (kind_of[:, None, None] * n_segments + target) * n_segments + source
    return [(layer.flatten()[pair] & causal)[:, None] for layer in allowed.unbind(1)]

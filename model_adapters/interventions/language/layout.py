"""TokenLayout: a name for every position of the expanded prompt.

A prompt of some thousand tokens has only a few dozen *segments*: the system text, each frame, the
question's stem and options, the template around them, the last token. Interventions speak of
segments; this file says which positions those are. An adapter builds the layout from character
offsets of the rendered prompt.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int

from mapflow.model_adapters.interventions.language.segment_masks import stretches
from mapflow.model_adapters.interventions.language.tensors import Tensor
from mapflow.results.contract.errors import MapflowError

SegmentKind = Literal["system", "frame", "label", "stem", "option", "template", "last"]


@dataclass(frozen=True, order=True)
class Segment:
    """A named set of positions; `index` counts frames and options from 0, else it is 0."""

    kind: SegmentKind
    index: int = 0

    def __str__(self) -> str:
        return f"{self.kind}[{self.index}]" if self.kind in ("frame", "option") else self.kind


@dataclass(frozen=True)
class TokenLayout:
    """The segment of each position of one prompt: a tiling by construction.

    `segment_of[p]` indexes `segments`. `label` ("Question:", "Options:") belongs to the question
    but to neither stem nor options. `true_option` is the correct option's index, None for
    open-ended questions.
    """

    segments: tuple[Segment, ...]
    segment_of: Int[np.ndarray, " n"]
    true_option: int | None = None

    @classmethod
    def from_runs(
        cls, runs: Iterable[tuple[Segment, int]], true_option: int | None = None
    ) -> TokenLayout:
        """From (segment, number of positions) in order of the prompt; a segment may occur in
        several runs.
        """
        index: dict[Segment, int] = {}
        flat = [
            index.setdefault(segment, len(index)) for segment, size in runs for _ in range(size)
        ]
        return cls(tuple(index), np.array(flat, dtype=np.int64), true_option)

    def __len__(self) -> int:
        return int(self.segment_of.shape[0])

    @property
    def n_frames(self) -> int:
        return sum(segment.kind == "frame" for segment in self.segments)

    @cached_property
    def sizes(self) -> Int[np.ndarray, " segment"]:
        """Number of positions of each segment."""
        return np.bincount(self.segment_of, minlength=len(self.segments))

    @cached_property
    def runs(self) -> tuple[Int[np.ndarray, " run"], Int[np.ndarray, " run"]]:
        """The contiguous stretches of one segment, in order of the prompt: each one's segment and
        length.
        """
        return stretches(self.segment_of)

    @cached_property
    def causal(self) -> Bool[np.ndarray, "target source"]:
        """True where some position of `target` is equal to or later than one of `source`."""
        n, n_segments = len(self), len(self.segments)
        first, final = np.full(n_segments, n), np.full(n_segments, -1)
        np.minimum.at(first, self.segment_of, np.arange(n))
        np.maximum.at(final, self.segment_of, np.arange(n))
        return first <= final[:, None]

    def select(self, name: str) -> Bool[np.ndarray, " segment"]:
        """The segments that `name` selects (names: `SELECTORS`, or `frame[2]`, `option[0]`…).

        Raises MapflowError if this prompt has none: an open-ended question has no options.
        """
        chosen = [_matches(segment, name, self.true_option) for segment in self.segments]
        if not any(chosen):
            raise MapflowError(
                f"this prompt has no {name!r}; its segments are"
                f" {', '.join(_describe(self.segments))}"
            )
        return np.array(chosen)

    def positions(self, name: str) -> Int[Tensor, " positions"]:
        """All positions of the segments that `name` selects, ascending: an index into tensors over
        the prompt.
        """
        import torch

        return torch.from_numpy(np.flatnonzero(self.select(name)[self.segment_of]))


SELECTORS: dict[str, tuple[SegmentKind, ...]] = {
    "all": ("system", "frame", "label", "stem", "option", "template", "last"),
    "system": ("system",),
    "video": ("frame",),
    "question": ("label", "stem", "option"),
    "stem": ("stem",),
    "options": ("option",),
    "true_option": ("option",),
    "false_options": ("option",),
    "template": ("template",),
    "last": ("last",),
}


def _matches(segment: Segment, name: str, true_option: int | None) -> bool:
    if name not in SELECTORS:
        return str(segment) == name
    if segment.kind not in SELECTORS[name]:
        return False
    if name == "true_option":
        return segment.index == true_option
    return name != "false_options" or (true_option is not None and segment.index != true_option)


def _describe(segments: Sequence[Segment]) -> list[str]:
    """Short names for an error message: frames as one range."""
    frames = [str(segment) for segment in segments if segment.kind == "frame"]
    names = [str(segment) for segment in segments if segment.kind != "frame"]
    return [f"{frames[0]}…{frames[-1]}", *names] if frames else names


def example_layout(frames: int, tokens_per_frame: int) -> TokenLayout:
    """The layout of a prompt in the paper's protocol, for explanations and examples.

    45 system tokens, a four-way question of 60, a template of 19, the last token. Raises
    MapflowError without any video token.
    """
    if min(frames, tokens_per_frame) < 1:
        raise MapflowError(
            f"a prompt of {frames} frames with {tokens_per_frame} tokens each shows no video"
        )
    options = [run for i in range(4) for run in ((Segment("option", i), 9), (Segment("label"), 1))]
    runs = [
        (Segment("system"), 45),
        *((Segment("frame", i), tokens_per_frame) for i in range(frames)),
        (Segment("template"), 4),
        (Segment("label"), 2),
        (Segment("stem"), 16),
        (Segment("label"), 3),
        *options[:-1],
        (Segment("template"), 15),
        (Segment("last"), 1),
    ]
    return TokenLayout.from_runs(runs, true_option=0)

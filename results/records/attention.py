"""AttentionRecord: the attention that chosen query positions pay to the video, layer by layer.

One line of attention.jsonl per question and intervention, with layers x video tokens weights.
Weights are means over heads and query positions, over all keys of the prompt, so shares are
comparable between questions: 0 to 1 in records, percent in the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from mapflow.results.contract.visible_text import quoted
from mapflow.results.records.base import JsonlRecord, Summary, layer_table, means

PARTS = ("system", "video", "question", "template", "last")
"""Every position of a prompt belongs to one of these."""


@dataclass(frozen=True)
class AttentionRecord(JsonlRecord):
    """The attention of one segment's positions to the video, for one question.

    Sequences hold one entry per layer that ran; entry l - 1 belongs to (1-based) layer l.

    Attributes:
        rows, n_rows: the segment of the query positions, and their number.
        frames: 0-based frame of each video token.
        weights: `weights[l][t]`, the attention to the t-th video token.
        by_frame: `by_frame[l][f]`, the attention to frame f.
        shares: `shares[part][l]` for each of PARTS. They sum to 1 in a layer, or to less where a
            query position keeps no key.
    """

    FILE: ClassVar[str] = "attention.jsonl"
    RUN: ClassVar[str] = "attention maps"
    OPTIONAL: ClassVar[frozenset[str]] = frozenset({"left_out"})
    PER_LAYER: ClassVar[tuple[str, ...]] = ("weights", "by_frame", "shares")

    question_id: str
    video_id: str
    task: str
    intervention: str
    protocol: str
    rows: str
    n_rows: int = 0
    frames: tuple[int, ...] = ()
    weights: tuple[Sequence[float], ...] = ()
    by_frame: tuple[Sequence[float], ...] = ()
    shares: Mapping[str, Sequence[float]] | None = None
    left_out: str | None = None
    error: str | None = None

    def contradiction(self) -> str | None:
        if missing := set(PARTS).difference(self.shares or {}):
            return f"shares lack {quoted(min(missing))}"
        for layer in self.weights:
            if len(layer) != len(self.frames):
                return f"weights of {len(layer)} video tokens, frames of {len(self.frames)}"
        if len({len(layer) for layer in self.by_frame}) > 1:
            return "layers of by_frame differ in their number of frames"
        return super().contradiction()


@dataclass(frozen=True)
class AttentionSummary(Summary):
    """Mean shares over `n` questions: `shares[part]` has one entry per layer."""

    intervention: str
    n: int
    left_out: int
    errors: int
    shares: Mapping[str, Sequence[float]]


def summarize_attention(records: Sequence[AttentionRecord], intervention: str) -> AttentionSummary:
    """Means over the records of one intervention; every question counts once."""
    own = [record for record in records if record.intervention == intervention]
    answered = [record.shares or {} for record in own if record.measured]
    return AttentionSummary(
        intervention,
        n=len(answered),
        left_out=sum(record.left_out is not None for record in own),
        errors=sum(record.error is not None for record in own),
        shares={part: means([shares[part] for shares in answered]) for part in PARTS},
    )


def attention_table(summaries: Sequence[AttentionSummary]) -> str:
    """One row per layer, one column per intervention: mean share of attention to the video in
    percent.
    """
    columns = [(one.intervention, one.shares["video"]) for one in summaries]
    left_out = [one.left_out for one in summaries]
    counts = [
        ["n", *(one.n for one in summaries)],
        *([["left out", *left_out]] if any(left_out) else []),
    ]
    return layer_table(columns, lambda share: f"{100 * share:.2f}", counts)

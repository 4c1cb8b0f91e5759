"""AttentionRecord: how much of their attention chosen rows pay to each video token, in every layer of one question's run.

A line in attention.jsonl a question × intervention: layers × video tokens numbers. Weights are means over heads and rows,
probabilities over all keys of the prompt, so the share that goes to video is a number itself: 0..1 in records, percent
in the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from tabulate import tabulate

from mapflow.results.records.base import Line
from mapflow.results.records.trace import means

PARTS = ("system", "video", "question", "template", "last")
"""Every position of a prompt belongs to one of them."""


@dataclass(frozen=True)
class AttentionRecord(Line):
    """Sequences over layers hold an entry a layer that ran, entry l − 1 for (1-based) layer l.

    `rows` names the reading positions, of which there are `n_rows`. `weights[l][t]` is what they pay to the t-th video
    token, whose 0-based frame is `frames[t]`; `by_frame[l][f]` is what they pay to frame f, and `shares[part][l]` to each
    of PARTS. Shares of a layer sum to 1, or to less where cuts leave rows without any key. `error` says why a question
    could not be asked.
    """

    FILE: ClassVar[str] = "attention.jsonl"
    RUN: ClassVar[str] = "attention maps"

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
    error: str | None = None

    @property
    def key(self) -> tuple[str, str]:
        return self.question_id, self.intervention


@dataclass(frozen=True)
class AttentionSummary:
    """Mean shares over `n` questions: `shares[part]` has an entry a layer."""

    intervention: str
    n: int
    errors: int
    shares: Mapping[str, Sequence[float]]

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name != "intervention"}


def summarize_attention(records: Sequence[AttentionRecord], intervention: str) -> AttentionSummary:
    """Over this intervention's records, every question counting once."""
    own = [record for record in records if record.intervention == intervention]
    asked = [record.shares or {} for record in own if record.error is None]
    return AttentionSummary(
        intervention,
        n=len(asked),
        errors=len(own) - len(asked),
        shares={part: means([shares[part] for shares in asked]) for part in PARTS},
    )


def attention_table(summaries: Sequence[AttentionSummary]) -> str:
    """A row a layer; by intervention the mean share of attention that goes to video, in percent."""
    curves = [one.shares["video"] for one in summaries]
    rows = [
        [
            layer + 1,
            *(f"{100 * curve[layer]:.2f}" if layer < len(curve) else "–" for curve in curves),
        ]
        for layer in range(max(map(len, curves), default=0))
    ]
    rows.append(["n", *(one.n for one in summaries)])
    headers = ["layer", *(one.intervention for one in summaries)]
    return tabulate(rows, headers=headers, disable_numparse=True, stralign="right")

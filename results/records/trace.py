"""TraceRecord: how probable each answer is after every layer, for one question and intervention.

One line of trace.jsonl. Probabilities are 0 to 1 in records and percent in the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from mapflow.results.contract.visible_text import quoted
from mapflow.results.records.base import JsonlRecord, Summary, layer_table, means


@dataclass(frozen=True)
class TraceRecord(JsonlRecord):
    """Sequences hold one entry per layer; entry l - 1 belongs to (1-based) layer l.

    Attributes:
        norm, released: the variant (`analyses/trace.py`).
        answer: first token of the baseline run's answer, as text.
        p_answers, p_targets: probability of `answer` and of the right answer under this
            intervention.
        p_options: probability of each option by letter.
        false_options: letters of the wrong options.
        tops: the most probable token.
    """

    FILE: ClassVar[str] = "trace.jsonl"
    RUN: ClassVar[str] = "a trace"
    OPTIONAL: ClassVar[frozenset[str]] = frozenset({"left_out"})
    PER_LAYER: ClassVar[tuple[str, ...]] = ("p_answers", "p_targets", "p_options")

    question_id: str
    video_id: str
    task: str
    intervention: str
    protocol: str
    norm: bool
    released: bool
    target: str
    answer: str | None = None
    p_answers: tuple[float, ...] = ()
    p_targets: tuple[float, ...] = ()
    p_options: Mapping[str, Sequence[float]] | None = None
    false_options: tuple[str, ...] = ()
    tops: tuple[str, ...] = ()
    left_out: str | None = None
    error: str | None = None

    def contradiction(self) -> str | None:
        unknown = [one for one in self.false_options if one not in (self.p_options or {})]
        if unknown:
            return f"false_options name {quoted(unknown[0])}, which p_options lacks"
        return super().contradiction()

    @property
    def p_false(self) -> tuple[float, ...]:
        """Mean over the wrong options, by layer; empty if there are none."""
        return means([(self.p_options or {})[letter] for letter in self.false_options])


@dataclass(frozen=True)
class TraceSummary(Summary):
    """Mean probabilities by layer over `n` questions; `p_false` over the `n_false` with wrong
    options.
    """

    intervention: str
    n: int
    n_false: int
    left_out: int
    errors: int
    p_answers: tuple[float, ...]
    p_targets: tuple[float, ...]
    p_false: tuple[float, ...]


def summarize_trace(records: Sequence[TraceRecord], intervention: str) -> TraceSummary:
    """Means over the records of one intervention. The wrong options of a question count as one."""
    own = [record for record in records if record.intervention == intervention]
    traced = [record for record in own if record.measured]
    false = [record.p_false for record in traced if record.false_options]
    return TraceSummary(
        intervention,
        n=len(traced),
        n_false=len(false),
        left_out=sum(record.left_out is not None for record in own),
        errors=sum(record.error is not None for record in own),
        p_answers=means([record.p_answers for record in traced]),
        p_targets=means([record.p_targets for record in traced]),
        p_false=means(false),
    )


def trace_table(summaries: Sequence[TraceSummary]) -> str:
    """One row per layer; for each intervention the base answer, the true and the mean false option
    in percent.
    """
    columns = [
        (f"{one.intervention}\n{name}", curve)
        for one in summaries
        for name, curve in (
            ("base answer", one.p_answers),
            ("true", one.p_targets),
            ("false", one.p_false),
        )
    ]
    left_out = [one.left_out for one in summaries for _ in range(3)]
    counts = [
        ["n", *(n for one in summaries for n in (one.n, one.n, one.n_false))],
        *([["left out", *left_out]] if any(left_out) else []),
    ]
    return layer_table(columns, lambda p: f"{100 * p:.2f}", counts)

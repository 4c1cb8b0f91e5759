"""TraceRecord: how probable each answer is after every layer of one question's run, and the mean over questions.

A line in trace.jsonl a question × intervention. Probabilities are 0..1 in records and percent in the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from tabulate import tabulate

from mapflow.results.records.base import Line


@dataclass(frozen=True)
class TraceRecord(Line):
    """Sequences hold an entry a layer, entry l − 1 read from (1-based) layer l.

    `answer` is the plain run's first token, as text, `p_answers` its probability under this intervention; `p_targets` is
    the right answer's. `p_options` holds every option's by letter, `false_options` the letters of wrong ones, and
    `tops` each layer's most probable token. `error` says why a question could not be traced.
    """

    FILE: ClassVar[str] = "trace.jsonl"
    RUN: ClassVar[str] = "a trace"

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
    error: str | None = None

    @property
    def key(self) -> tuple[str, str]:
        return self.question_id, self.intervention

    @property
    def p_false(self) -> tuple[float, ...]:
        """Mean over the false options, by layer; empty where there are none."""
        return means([(self.p_options or {})[letter] for letter in self.false_options])


@dataclass(frozen=True)
class TraceSummary:
    """Mean probabilities over `n` questions, an entry a layer; false options over the `n_false` that have some."""

    intervention: str
    n: int
    n_false: int
    errors: int
    p_answers: tuple[float, ...]
    p_targets: tuple[float, ...]
    p_false: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name != "intervention"}


def summarize_trace(records: Sequence[TraceRecord], intervention: str) -> TraceSummary:
    """Over this intervention's records; a question's false options count as one."""
    own = [record for record in records if record.intervention == intervention]
    traced = [record for record in own if record.error is None]
    false = [record.p_false for record in traced if record.false_options]
    return TraceSummary(
        intervention,
        n=len(traced),
        n_false=len(false),
        errors=len(own) - len(traced),
        p_answers=means([record.p_answers for record in traced]),
        p_targets=means([record.p_targets for record in traced]),
        p_false=means(false),
    )


def trace_table(summaries: Sequence[TraceSummary]) -> str:
    """A row a layer; by intervention the plain run's answer, the true option and the mean false option, in percent."""
    headers, columns = ["layer"], []
    for one in summaries:
        for name, curve in (
            ("base answer", one.p_answers),
            ("true", one.p_targets),
            ("false", one.p_false),
        ):
            headers.append(f"{one.intervention}\n{name}")
            columns.append(curve)
    layers = max((len(curve) for curve in columns), default=0)
    rows = [
        [
            layer + 1,
            *(f"{100 * curve[layer]:.2f}" if layer < len(curve) else "–" for curve in columns),
        ]
        for layer in range(layers)
    ]
    rows.append(["n", *(n for one in summaries for n in (one.n, one.n, one.n_false))])
    return tabulate(rows, headers=headers, disable_numparse=True, stralign="right")


def means(curves: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Layer by layer; empty without curves."""
    return tuple(sum(column) / len(column) for column in zip(*curves, strict=True))

"""The contents of a report as data; `harness/reporting` fills it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mapflow.results.figures.policy_diagram import PolicyDiagram
from mapflow.results.figures.route_curves import RoutePanel
from mapflow.results.records.record import Record
from mapflow.results.tables.formats import Table


@dataclass(frozen=True)
class SweepFigure:
    """The curves of a sweep, one panel per route, and the setup that they were measured with.

    drops: accuracy drops among the questions that the baseline run answers right, by layer.
    """

    caption: str
    curves: Sequence[RoutePanel]
    drops: Table
    provenance: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Answer:
    """One run's answer to one question.

    option_probs: probability of each option's letter over the whole vocabulary.
    error: the reason if the question failed; all else is then None.
    """

    prediction: str | None
    correct: bool | None
    valid: bool | None
    option_probs: Mapping[str, float] | None
    error: str | None

    @classmethod
    def of(cls, record: Record) -> Answer:
        return cls(
            record.prediction, record.correct, record.valid, record.option_probs, record.error
        )

    def to_json(self) -> dict[str, Any]:
        """With short names and four significant digits, as a page may hold many thousands."""
        values = {
            "p": self.prediction,
            "c": None if self.correct is None else int(self.correct),
            "v": None if self.valid is None else int(self.valid),
            "o": self.option_probs and {k: float(f"{p:.4g}") for k, p in self.option_probs.items()},
            "e": self.error,
        }
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class ViewedQuestion:
    """One question under every run.

    answers: one entry per run; None if the run does not have the question.
    stem, options, frames: empty if the benchmark's files are not available; frames are JPEG data
        URIs.
    """

    question_id: str
    task: str
    video_id: str
    target: str
    answers: Sequence[Answer | None]
    stem: str = ""
    options: Sequence[str] = ()
    frames: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        values = {
            "i": self.question_id,
            "t": self.task,
            "v": self.video_id,
            "g": self.target,
            "a": [answer and answer.to_json() for answer in self.answers],
            "s": self.stem,
            "o": list(self.options),
            "f": list(self.frames),
        }
        return {name: value for name, value in values.items() if value or name in "itvg"}


@dataclass(frozen=True)
class ViewerData:
    """All questions under all runs; `notes` name what is not shown."""

    runs: Sequence[str]
    questions: Sequence[ViewedQuestion]
    notes: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "runs": list(self.runs),
            "questions": [question.to_json() for question in self.questions],
        }


@dataclass(frozen=True)
class ReportContents:
    """The whole page. Warnings are at its top; sections without content are left out."""

    title: str
    leaderboards: Sequence[Table]
    viewer: ViewerData
    comparisons: Sequence[Table] = ()
    warnings: Sequence[str] = ()
    policies: Sequence[PolicyDiagram] = ()
    sweeps: Sequence[SweepFigure] = ()

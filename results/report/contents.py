"""What a report shows, as data. Whoever fills it may know models and videos; the page needs neither."""

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
    """A sweep's curves, a panel a route, and what they were measured on."""

    caption: str
    curves: Sequence[RoutePanel]
    provenance: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Answer:
    """What one run made of one question; probabilities by option's letter, over the whole vocabulary."""

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
        """Short names, and four significant digits: there may be tens of thousands of them."""
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
    """`answers` has one entry a run (None: the run was not asked). `stem`, `options` and `frames` (JPEG data URIs) are
    empty where the benchmark's files are not at hand."""

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
    """Every question under every run; `notes` say what is not shown."""

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
    """`warnings` stand at the top, where nobody overlooks them. Sections without content are left out of the page."""

    title: str
    leaderboard: Table | None
    viewer: ViewerData
    comparisons: Sequence[Table] = ()
    warnings: Sequence[str] = ()
    policies: Sequence[PolicyDiagram] = ()
    sweeps: Sequence[SweepFigure] = ()

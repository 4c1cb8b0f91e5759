"""The contents of a report as data; `harness/reporting` fills it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from mapflow.results.contract.visible_text import visible_lines
from mapflow.results.figures.mean_curves import CurveBlock
from mapflow.results.figures.policy_diagram import PolicyDiagram
from mapflow.results.figures.route_curves import RoutePanel
from mapflow.results.records.record import Record
from mapflow.results.statistics import Interval
from mapflow.results.tables.formats import Table


def questions_link(**filters: str | None) -> str:
    """The address, within the page, of the questions that pass `filters`.

    filters: the controls of the viewer by their ids; those that are None stay as they are by
        default. Runs are named as in `ViewerData.runs`.
    """
    # the viewer compares with texts as the page shows them
    shown = {name: visible_lines(value) for name, value in filters.items() if value is not None}
    return f"#questions?{urlencode(shown, quote_via=quote, safe='')}"


@dataclass(frozen=True)
class RunInShort:
    """One run on the first screen: a row of the forest plot.

    accuracy: over the answered questions, as a fraction.
    difference: to the baseline, as a fraction; None for the baseline and without a comparison.
    verdict: "baseline", a verdict of non-inferiority, "better" or "worse"; empty without a
        comparison.
    links: (text, address) of questions that are worth a look.
    """

    name: str
    accuracy: Interval
    difference: Interval | None = None
    verdict: str = ""
    links: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class BenchmarkInShort:
    """What the runs of one benchmark show, in sentences and as a forest plot.

    lead: what was asked and answered.
    sentences: one per comparison, or per run if nothing is compared.
    open_points: what these runs cannot show.
    chance: accuracy of uniform guessing, as a fraction; None for open-ended questions.
    margin: of non-inferiority, as a fraction.
    method: how intervals and verdicts were made.
    """

    title: str
    lead: str
    sentences: Sequence[str]
    open_points: Sequence[str]
    runs: Sequence[RunInShort]
    chance: float | None
    margin: float
    method: str


@dataclass(frozen=True)
class AnalysisFigure:
    """The curves of one analysis on one benchmark, and what they were measured with.

    blocks: panels of means by layer; `routes` are the panels of a sweep.
    tables: the numbers behind the curves.
    pictures: (text alternative, data URI) of drawings on the frames.
    """

    caption: str
    blocks: Sequence[CurveBlock] = ()
    routes: Sequence[RoutePanel] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()
    provenance: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class AnalysisSection:
    """All folders of one kind of analysis. `name` is its command, `about` says what it shows."""

    name: str
    title: str
    about: str
    figures: Sequence[AnalysisFigure]


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

    benchmark: its name in tables.
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
    benchmark: str = ""

    def to_json(self, benchmark: int) -> dict[str, Any]:
        values = {
            "i": self.question_id,
            "t": self.task,
            "v": self.video_id,
            "g": self.target,
            "b": benchmark,
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
        benchmarks = list(dict.fromkeys(question.benchmark for question in self.questions))
        return {
            "runs": list(self.runs),
            "benchmarks": benchmarks,
            "questions": [
                question.to_json(benchmarks.index(question.benchmark))
                for question in self.questions
            ],
        }


@dataclass(frozen=True)
class ReportContents:
    """The whole page. Warnings are at its top; sections without content are left out."""

    title: str
    leaderboards: Sequence[Table]
    viewer: ViewerData
    in_short: Sequence[BenchmarkInShort] = ()
    comparisons: Sequence[Table] = ()
    warnings: Sequence[str] = ()
    policies: Sequence[PolicyDiagram] = ()
    analyses: Sequence[AnalysisSection] = ()

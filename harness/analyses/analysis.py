"""Base of all analyses: command line, measurement of one question, table and figure.

`registry.py` lists all analyses. An analysis that measures one question at a time is a subclass of
`QuestionAnalysis`; it needs nothing but `measure`, the fields of its records, `summarize` and
`table`. Modules of analyses import torch only where they compute, so help and refusals of wrong
arguments are instant.
"""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, TypeVar

from mapflow.results.contract.errors import QUESTIONS_MISSING, MapflowError
from mapflow.results.contract.question import Question
from mapflow.results.records.base import NOT_FINITE, JsonlRecord, by_benchmark
from mapflow.tasks.registry import benchmark_titles

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from mapflow.harness.analyses.samples import Samples
    from mapflow.model_adapters.inference.subject import Subject
    from mapflow.model_adapters.interventions import Compiled, DecoderInputs, Intervention
    from mapflow.model_adapters.video_llm import Prepared, VideoLLM
    from mapflow.results.figures import CurveBlock, CurvePanel

R = TypeVar("R", bound=JsonlRecord)
A = TypeVar("A", bound="Analysis")
I = TypeVar("I", bound="InterventionAnalysis")  # noqa: E741


class Analysis(ABC):
    """One analysis with its settings. `mapflow NAME` calls these methods in this order."""

    @classmethod
    @abstractmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Adds the command's flags; needs no torch."""

    @classmethod
    @abstractmethod
    def from_options(cls: type[A], options: argparse.Namespace) -> A:
        """The analysis that a command line asks for; nothing is loaded yet. Raises MapflowError."""

    def check(self, questions: Sequence[Question]) -> None:
        """Raises MapflowError if the questions do not suit the analysis; no model is loaded yet."""
        for question in questions:
            if question.target == "":
                raise MapflowError(
                    f"task {question.task!r} has no right answers that an analysis can follow, only"
                    " a judge can score what models write; choose another --task"
                )

    def check_depth(self, n_layers: int) -> None:  # noqa: B027 - most have no layers to check
        """Raises MapflowError for layers that a model of this depth lacks; none is loaded yet."""

    @property
    def early_interventions(self) -> Sequence[Intervention]:
        """The interventions that the command line names."""
        return ()

    @abstractmethod
    def run_folders(self, folder: Path) -> Sequence[tuple[Path, str, Mapping[str, Any]]]:
        """The run folders that `run` writes: folder, file of records, settings in its identity."""

    @abstractmethod
    def run(self, subject: Subject, folder: Path) -> int:
        """Runs, writes records and summary into `folder`, prints the table.

        Returns the exit code.
        """


class Drawing(NamedTuple):
    """A figure, its data as rows, and remarks about it."""

    figure: Figure
    rows: list[dict[str, Any]]
    notes: Sequence[str] = ()


class QuestionAnalysis(Analysis, Generic[R]):
    """An analysis whose records each belong to one question and one of `names`.

    Attributes of the class:
        RECORD: type of its records.
        FIGURE: file name of its figure.
        VERB: what is done with a question ("cannot be traced").
        NOT_FINITE: the error of numbers that are not finite.
        JOINS_FOLDERS: `mapflow figure` can draw several folders together.
        TAKES_WORDS: `mapflow figure` takes --words.
    """

    RECORD: ClassVar[type[JsonlRecord]]
    FIGURE: ClassVar[str]
    VERB: ClassVar[str]
    NOT_FINITE: ClassVar[str] = NOT_FINITE
    JOINS_FOLDERS: ClassVar[bool] = False
    TAKES_WORDS: ClassVar[bool] = False

    samples: Samples = "all"
    """Questions that are measured, by the answer of the baseline run (`samples.py`)."""

    @property
    @abstractmethod
    def names(self) -> Sequence[str]:
        """Interventions or routes: each question gets one record for each."""

    @property
    @abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """Settings that must be equal, as model and wording must, to continue a folder."""

    def run_folders(self, folder: Path) -> Sequence[tuple[Path, str, Mapping[str, Any]]]:
        return [(folder, self.RECORD.FILE, {**self.settings, "samples": self.samples})]

    @property
    @abstractmethod
    def note(self) -> str:
        """One line that explains the numbers of the table."""

    @abstractmethod
    def fields(self, question: Question) -> Mapping[str, Any]:
        """Fields that all records of a question have, of failed ones too."""

    @abstractmethod
    def measure(self, model: VideoLLM, prepared: Prepared) -> list[R]:
        """The records of one question, one per name, in order.

        Raises MapflowError, naming the question, if the analysis does not fit its prompt.
        """

    def left_out(self, model: VideoLLM, prepared: Prepared) -> list[R]:
        """The records of a question that `samples` leaves out; empty if it is measured."""
        if self.samples == "all":
            return []
        from mapflow.harness.analyses.samples import baseline_answer, is_right, why_left_out

        question, answer = prepared.question, baseline_answer(model, prepared)
        if answer is None:
            return self.failed(question, self.NOT_FINITE)
        reason = why_left_out(self.samples, is_right(model, prepared, answer))
        return [self.record(question, name, left_out=reason) for name in self.names if reason]

    def plan(self, model: VideoLLM, prepared: Prepared) -> list[str]:
        """Lines to print before the first question is measured."""
        return []

    @abstractmethod
    def summarize(self, records: Sequence[R]) -> Sequence[Any]:
        """The summary that `table` shows."""

    @abstractmethod
    def table(self, summary: Sequence[Any]) -> str:
        """The table that the command prints."""

    @classmethod
    @abstractmethod
    def figure(
        cls, records: Sequence[R], names: Sequence[str], title: str = "", words: Path | None = None
    ) -> Drawing:
        """Curves of the records; `names` gives the order of interventions or routes."""

    @classmethod
    def blocks(cls, records: Sequence[R], names: Sequence[str]) -> list[CurveBlock]:
        """The curves of `figure` as data, for a report; empty if it does not show them."""
        return []

    def fitted(self: A, model: VideoLLM) -> A:
        """The analysis with all settings that depend on the model.

        Raises MapflowError if one does not fit.
        """
        return self

    def about(self, model: VideoLLM) -> Mapping[str, Any]:
        """Further entries of the manifest."""
        return {}

    def summaries(self, records: Sequence[R]) -> dict[str, Sequence[Any]]:
        """Benchmark → summary of its records: means over several benchmarks mean nothing."""
        groups = by_benchmark(records) or {"": []}
        return {benchmark: self.summarize(own) for benchmark, own in groups.items()}

    def tables(self, summaries: Mapping[str, Sequence[Any]]) -> str:
        """One table per benchmark, each under its title; a single one without."""
        if len(summaries) == 1:
            return self.table(next(iter(summaries.values())))
        titles = benchmark_titles()
        return "\n\n".join(
            f"{titles.get(benchmark, benchmark)}\n{self.table(summary)}"
            for benchmark, summary in summaries.items()
        )

    def save(self, summary: Sequence[Any], folder: Path) -> None:
        """Writes summary.json, an entry per name."""
        from mapflow.results.runs.folder import SUMMARY, write_json

        write_json(folder / SUMMARY, {one.name: one.to_json() for one in summary})

    def save_all(self, summaries: Mapping[str, Sequence[Any]], folder: Path) -> None:
        """`save`; with several benchmarks, into a folder for each."""
        from mapflow.results.runs.folder import SUMMARY

        for benchmark, summary in summaries.items():
            place = folder if len(summaries) == 1 else folder / benchmark
            place.mkdir(exist_ok=True)
            self.save(summary, place)
        if len(summaries) > 1:
            (folder / SUMMARY).unlink(missing_ok=True)  # of an earlier command with one benchmark

    def draw_overlays(self, subject: Subject, records: Sequence[R], folder: Path) -> None:
        """Draws records on the frames of the questions, if the analysis was asked to."""

    def verdict(self, summary: Sequence[Any], model: VideoLLM) -> int:
        """An exit code for what the summary shows; prints its reason."""
        return 0

    def run(self, subject: Subject, folder: Path) -> int:
        from mapflow.harness.analyses.run import run_analysis
        from mapflow.results.runs.manifest import read_manifest
        from mapflow.results.runs.provenance import uncut_note

        fitted = self.fitted(subject.model)
        records = run_analysis(fitted, subject, folder)
        if records is None:
            return 0  # the last process to finish writes the summary
        summaries = fitted.summaries(records)
        print(fitted.tables(summaries))
        print(f"\nquestions ({fitted.samples}): {sample_counts(records)}\n{fitted.note}: {folder}")
        if said := uncut_note(read_manifest(folder)):
            print(said)
        fitted.save_all(summaries, folder)
        fitted.draw_overlays(subject, records, folder)
        failed = any(one.error for one in records if one.key[1] in fitted.names)
        verdicts = [fitted.verdict(summary, subject.model) for summary in summaries.values()]
        return max(verdicts) or (QUESTIONS_MISSING if failed else 0)

    def record(self, question: Question, name: str, **values: Any) -> R:
        return self.RECORD.of(question, name, **self.fields(question), **values)  # pyright: ignore[reportReturnType]

    def failed(self, question: Question, reason: str) -> list[R]:
        """The records of a question that failed."""
        fields = self.fields(question)
        return [
            self.RECORD.failed(question, name, reason, **fields)  # pyright: ignore[reportReturnType]
            for name in self.names
        ]

    def checked(
        self, question: Question, name: str, numbers: Iterable[Tensor], values: Mapping[str, Any]
    ) -> R:
        """The record that holds `values`, or one with an error if `numbers` are not all finite."""
        if all(bool(one.isfinite().all()) for one in numbers):
            return self.record(question, name, **values)
        return self.record(question, name, error=self.NOT_FINITE)

    @contextmanager
    def naming(self, question: Question) -> Iterator[None]:
        """Names the question in errors of what does not fit its prompt."""
        try:
            yield
        except MapflowError as error:
            why = "" if question.options else "; an open-ended question has no options"
            raise MapflowError(
                f"question {question.question_id} cannot be {self.VERB}: {error}{why}"
            ) from None


@dataclass(frozen=True)
class InterventionAnalysis(QuestionAnalysis[R]):
    """An analysis that looks at every question under each of some interventions."""

    interventions: tuple[Intervention, ...]
    samples: Samples = field(default="all", kw_only=True)

    @property
    def names(self) -> Sequence[str]:
        return [str(one) for one in self.interventions]

    @property
    def early_interventions(self) -> Sequence[Intervention]:
        return self.interventions

    def fitted(self: I, model: VideoLLM) -> I:
        from mapflow.model_adapters.inference.subject import fit_interventions

        return replace(self, interventions=fit_interventions(self.interventions, model))

    def about(self, model: VideoLLM) -> Mapping[str, Any]:
        return {
            "interventions": {str(one): one.describe(model.pathways) for one in self.interventions}
        }

    def compiled(
        self,
        model: VideoLLM,
        prepared: Prepared,
        inputs: DecoderInputs,
        interventions: Sequence[Intervention],
    ) -> list[Compiled]:
        """Interventions compiled for one prompt. Raises MapflowError, naming the question."""
        with self.naming(prepared.question):
            return model.compile_all(interventions, prepared, inputs)


def sample_counts(records: Sequence[JsonlRecord]) -> str:
    """How many questions of these records were measured, left out by --samples, and failed."""
    questions = {one.question_id: one for one in records}
    failed = {one.question_id for one in records if one.error is not None}
    left = {name for name, one in questions.items() if one.why_left_out} - failed
    measured = len(questions) - len(left) - len(failed)
    return f"{measured:,} measured, {len(left):,} left out, {len(failed):,} failed"


def six_digits(numbers: Any) -> Any:
    """Nested lists of floats, rounded to six significant digits; float32 agrees on fewer."""
    if isinstance(numbers, list):
        return [six_digits(one) for one in numbers]
    return float(f"{numbers:.6g}")


def band_notes(panels: Sequence[CurvePanel]) -> list[str]:
    """A remark if a curve has no band, which needs questions about at least two videos."""
    bare = any(not curve.low for panel in panels for curve in panel.curves.values())
    return ["no band where all questions are about one video"] if bare else []

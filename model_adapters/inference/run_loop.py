"""The one loop from questions to records: runs under lmms-eval, analyses and discovery all use it.

    threads decode and pin -> batches by length -> the device computes -> records go into the folder

`Work` says what is computed for a prepared question. A question that fails becomes an error record,
and the loop continues. A run that is started again computes only what its folder lacks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import torch

from mapflow.model_adapters.device_memory import out_of_memory
from mapflow.model_adapters.inference import answering
from mapflow.model_adapters.inference.batch_size import BatchSize
from mapflow.model_adapters.inference.memory_limit import (
    begin_within_memory,
    too_large,
    unless_too_large,
)
from mapflow.model_adapters.inference.question_loading import load_ahead
from mapflow.model_adapters.inference.start_checks import start_checks
from mapflow.model_adapters.inference.subject import weights_dtype
from mapflow.model_adapters.interventions import Intervention
from mapflow.model_adapters.progress import progress
from mapflow.model_adapters.video_llm import Prepared, VideoLLM
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import Question
from mapflow.results.records.base import JsonlRecord
from mapflow.results.records.record import Record
from mapflow.results.runs.folder import RunFolder

R = TypeVar("R", bound=JsonlRecord)
T = TypeVar("T")

WINDOW = 4
"""Number of batches whose questions are sorted by length before they are cut into batches."""


class Work(Protocol[R]):
    """The computation for each prepared question.

    Attributes:
        batch_size: how many questions are computed together; with 1 they are computed in order.
        reads_later: `begin` returns before the device has finished, so on a GPU the next batch
            begins before this one is read.
    """

    @property
    def model(self) -> VideoLLM: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def reads_later(self) -> bool: ...

    def names(self, question: Question) -> Sequence[str]:
        """Interventions or routes: the question gets one record for each."""
        ...

    def begin(self, batch: Sequence[Prepared]) -> Callable[[], list[list[R]]]:
        """Starts the computation; the function returned gives the records of each question.

        Raises MapflowError for an error that is not the question's, which ends the run.
        """
        ...

    def failed(self, question: Question, reason: str) -> list[R]:
        """The records of a question that failed."""
        ...


@dataclass(frozen=True)
class Answering:
    """Answers to questions under interventions (`answering.py`).

    Questions of one batch must have the same interventions. In float32 every question is computed
    alone: other batches would change the last bits of its probabilities. So records in float32 do
    not depend on `at_once`, and a CPU gains nothing from batches: `auto` is 1 there. `finish`
    completes each record of an answer before it is written.
    """

    model: VideoLLM
    interventions_of: Callable[[Question], Sequence[Intervention]]
    at_once: BatchSize = field(default_factory=BatchSize)
    reads_later: bool = True
    finish: Callable[[Record], Record] | None = None

    @property
    def batch_size(self) -> int:
        alone = self.model.decoder.device.type == "cpu" and self.at_once.fixed is None
        return 1 if alone or weights_dtype(self.model) == torch.float32 else self.at_once.size

    def names(self, question: Question) -> list[str]:
        return [str(one) for one in self.interventions_of(question)]

    @torch.inference_mode()
    def begin(self, batch: Sequence[Prepared]) -> Callable[[], list[list[Record]]]:
        asked = self.interventions_of(batch[0].question)
        read = begin_within_memory(self.model, batch, asked, self.at_once)
        if (finish := self.finish) is None:
            return read
        return lambda: [[finish(record) for record in records] for records in read()]

    def failed(self, question: Question, reason: str) -> list[Record]:
        return [answering.failed(question, i, reason) for i in self.interventions_of(question)]


@dataclass(frozen=True)
class OneByOne(Generic[R]):
    """`ask` gives all records of one question; if memory runs out, the question has failed."""

    model: VideoLLM
    all_names: Sequence[str]
    ask: Callable[[Prepared], list[R]]
    fail: Callable[[Question, str], list[R]]
    batch_size: int = 1
    reads_later: bool = False

    def names(self, question: Question) -> Sequence[str]:
        return self.all_names

    def begin(self, batch: Sequence[Prepared]) -> Callable[[], list[list[R]]]:
        (prepared,) = batch
        records = unless_too_large(
            self.model, lambda: self.ask(prepared), lambda why: self.fail(prepared.question, why)
        )
        return lambda: [records]

    def failed(self, question: Question, reason: str) -> list[R]:
        return self.fail(question, reason)


def answer_questions(
    model: VideoLLM,
    questions: Iterable[Question],
    interventions: Sequence[Intervention],
    batch_size: BatchSize | None = None,
    folder: RunFolder[Record] | None = None,
    *,
    show: bool = False,
    finish: Callable[[Record], Record] | None = None,
) -> Iterator[tuple[Question, list[Record]]]:
    """`run_questions` for answers: every question under the same interventions."""
    questions, size = list(questions), batch_size or BatchSize()
    size.start(len(questions))
    work = Answering(model, lambda question: interventions, size, finish=finish)
    return run_questions(work, questions, folder, show=show)


def run_questions(
    work: Work[R],
    questions: Iterable[Question],
    folder: RunFolder[R] | None = None,
    *,
    title: str = "questions",
    show: bool = False,
) -> Iterator[tuple[Question, list[R]]]:
    """Every question that `folder` does not fully answer yet, with its records, which are in the
    folder by then.

    Questions come in order if they are computed one by one. `show` draws a progress bar called
    `title`. Raises whatever `work` and `model.prepare` raise, apart from errors of single
    questions, after every question before has been yielded.
    """
    waiting = {
        question.question_id: question
        for question in questions
        if folder is None
        or any((question.question_id, name) not in folder.answered for name in work.names(question))
    }
    with progress(total=len(waiting), title=title, hidden=not show) as bar:
        for question, records in _computed(work, waiting.values(), folder):
            if folder is not None:
                folder.append(record for record in records if record.key not in folder.answered)
            bar.update()
            yield question, records


def _computed(
    work: Work[R], questions: Iterable[Question], folder: RunFolder[R] | None
) -> Iterator[tuple[Question, list[R]]]:
    begun = _begun(work, questions, folder)
    later = work.reads_later and work.model.decoder.device.type == "cuda"
    for read in one_behind(begun) if later else begun:
        yield from read()


def _begun(
    work: Work[R], questions: Iterable[Question], folder: RunFolder[R] | None
) -> Iterator[Callable[[], list[tuple[Question, list[R]]]]]:
    """Starts batch after batch; each function yielded waits for the records of its batch.

    The first question that can be asked is also asked for the start checks of the folder's run.
    """
    checked = folder is None

    def begin(batch: Sequence[Prepared]) -> Callable[[], list[tuple[Question, list[R]]]]:
        read = work.begin(batch)
        asked = [prepared.question for prepared in batch]
        return lambda: list(zip(asked, read(), strict=True))

    def failed(question: Question, reason: str) -> Callable[[], list[tuple[Question, list[R]]]]:
        return lambda: [(question, work.failed(question, reason))]

    window: list[Prepared] = []
    for question, prepared in load_ahead(work.model, questions):
        if isinstance(prepared, Exception):
            yield failed(question, _reason(work.model, prepared))
        else:
            if folder is not None and not checked:
                checked = _check_start(work.model, prepared, folder)
            window.append(prepared)
        if len(window) >= (1 if work.batch_size == 1 else WINDOW * work.batch_size):
            yield from map(begin, batches_by_length(window, lambda: work.batch_size))
            window = []
    yield from map(begin, batches_by_length(window, lambda: work.batch_size))


def _check_start(model: VideoLLM, prepared: Prepared, folder: RunFolder[Any]) -> bool:
    """The start checks with this question, into the manifest; False if it cannot be asked.

    Raises MapflowError if the model fails them.
    """
    try:
        (inputs,) = model.embed([prepared])
    except Exception:  # the question's own trouble, which is reported when it is asked
        return False
    try:
        folder.describe(start_checks(model, prepared, inputs))
    except Exception as error:
        if out_of_memory(error):
            return False
        raise
    return True


def batches_by_length(
    window: Sequence[Prepared], size: Callable[[], int]
) -> Iterator[list[Prepared]]:
    """Batches of prompts of similar length, to need little padding; the last one may be smaller.

    `size` is asked before each batch.
    """
    ordered = sorted(window, key=lambda prepared: len(prepared.layout))
    while ordered:
        n = size()
        yield ordered[:n]
        del ordered[:n]


def one_behind(reads: Iterable[Callable[[], T]]) -> Iterator[Callable[[], T]]:
    """The same functions in order, each yielded only after the next one was taken from `reads`.

    If `reads` raises, the function before is yielded first.
    """
    coming, waiting = iter(reads), None
    while True:
        try:
            begun = next(coming)
        except StopIteration:
            break
        except Exception:
            if waiting is not None:
                yield waiting
            raise
        if waiting is not None:
            yield waiting
        waiting = begun
    if waiting is not None:
        yield waiting


def _reason(model: VideoLLM, error: Exception) -> str:
    """The reason why a question could not be prepared. Raises errors that are not its fault."""
    if isinstance(error, MapflowError):
        return str(error)
    if out_of_memory(error):
        return too_large(model)
    raise error

"""An ordinary run: questions in, records out, the device never waiting for what could be done meanwhile.

    threads decode and pin  ->  batches by length  ->  the device answers  ->  records of the batch before are made

Works without lmms-eval, which is one of its callers. A broken video is an error record, not an end; memory that runs
out halves what is asked at once. Knows no family, no benchmark and no folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import torch

from mapflow.model_adapters.inference.answering import failed
from mapflow.model_adapters.inference.memory_limit import (
    begin_within_memory,
    out_of_memory,
    too_large,
)
from mapflow.model_adapters.inference.question_loading import load_ahead
from mapflow.model_adapters.interventions import Intervention
from mapflow.model_adapters.video_llm import Prepared, VideoLLM
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import Question
from mapflow.results.records.record import Record

Answered = tuple[Question, list[Record]]
T = TypeVar("T")

WINDOW = 4
"""Batches' worth of questions that are sorted by length before they are cut into batches."""


def answer_questions(
    model: VideoLLM,
    questions: Iterable[Question],
    interventions: Sequence[Intervention],
    batch_size: int = 1,
) -> Iterator[Answered]:
    """Every question with its records, one an intervention; in order where `batch_size` is 1.

    In float32 every question goes alone: other batches would move the last bits of its probabilities, and records in
    that precision do not depend on `batch_size` (a CPU gains nothing from batches either).

    On a GPU a batch is read back while the next one is computed. Raises MapflowError where an intervention does not fit,
    after everything answered before has been yielded.
    """
    size = 1 if next(model.model.parameters()).dtype == torch.float32 else batch_size
    begun = _begin_all(model, questions, interventions, size)
    reads = one_behind(begun) if model.decoder.device.type == "cuda" else begun
    for read in reads:
        yield from read()


def _begin_all(
    model: VideoLLM, questions: Iterable[Question], interventions: Sequence[Intervention], size: int
) -> Iterator[Callable[[], list[Answered]]]:
    """Hands work to the device; calling what it yields waits for the answers."""

    def begin(batch: Sequence[Prepared]) -> Callable[[], list[Answered]]:
        read = begin_within_memory(model, batch, interventions)
        asked = [prepared.question for prepared in batch]
        return lambda: list(zip(asked, read(), strict=True))

    window: list[Prepared] = []
    for question, prepared in load_ahead(model, questions, lambda question: question):
        if isinstance(prepared, Exception):
            yield _refused(question, interventions, _reason(model, prepared))
        else:
            window.append(prepared)
        if len(window) == (1 if size == 1 else WINDOW * size):
            yield from map(begin, batches_by_length(window, size))
            window = []
    yield from map(begin, batches_by_length(window, size))


def batches_by_length(window: Sequence[Prepared], size: int) -> list[list[Prepared]]:
    """Batches of `size` prompts of similar length, so that little is padding; the last one may be smaller."""
    ordered = sorted(window, key=lambda prepared: len(prepared.layout))
    return [ordered[i : i + size] for i in range(0, len(ordered), size)]


def one_behind(reads: Iterable[Callable[[], T]]) -> Iterator[Callable[[], T]]:
    """The same in the same order, each only when the next one has begun (or failed to, or there is none)."""
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


def _refused(
    question: Question, interventions: Sequence[Intervention], reason: str
) -> Callable[[], list[Answered]]:
    return lambda: [(question, [failed(question, one, reason) for one in interventions])]


def _reason(model: VideoLLM, error: Exception) -> str:
    """Why a question could not be made ready; raises what is no fault of the question."""
    if isinstance(error, MapflowError):
        return str(error)
    if out_of_memory(error):
        return too_large(model)
    raise error

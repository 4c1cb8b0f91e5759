"""When memory runs out: the batch halves, then the interventions do, and what still does not fit is an error record.

A question that fits alone is answered; the run goes on. Half a batch gives the same answers as the whole one, within
the noise of its precision. Knows no family and no decoder.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from mapflow.model_adapters.inference.answering import begin, failed
from mapflow.model_adapters.interventions import Intervention
from mapflow.model_adapters.video_llm import Prepared, VideoLLM
from mapflow.results.records.record import Record

R = TypeVar("R")

SIGNS = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""In the messages of RuntimeErrors by which torch says on some devices that memory is out."""


def answer_within_memory(
    model: VideoLLM, prepared: Sequence[Prepared], interventions: Sequence[Intervention]
) -> list[list[Record]]:
    """What `answering.answer` gives, in as many parts as memory asks for; what does not fit alone is an error record.

    Raises what `answer` raises, but for memory.
    """
    return begin_within_memory(model, prepared, interventions)()


def begin_within_memory(
    model: VideoLLM, prepared: Sequence[Prepared], interventions: Sequence[Intervention]
) -> Callable[[], list[list[Record]]]:
    """The same in two halves, as `answering.begin`."""
    try:
        return begin(model, prepared, interventions)
    except Exception as error:
        if not out_of_memory(error):
            raise
    free_memory()  # only here, when the error no longer holds the frames that hold the tensors
    if len(prepared) > 1:
        half = len(prepared) // 2
        first, second = (
            begin_within_memory(model, part, interventions)
            for part in (prepared[:half], prepared[half:])
        )
        return lambda: [*first(), *second()]
    if len(interventions) > 1:
        half = len(interventions) // 2
        first, second = (
            begin_within_memory(model, prepared, part)
            for part in (interventions[:half], interventions[half:])
        )
        return lambda: [[*left, *right] for left, right in zip(first(), second(), strict=True)]
    return lambda: [[failed(prepared[0].question, interventions[0], too_large(model))]]


def out_of_memory(error: BaseException) -> bool:
    """Does `error` say that memory is out, on whatever device?"""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)
    )


def unless_too_large(
    model: VideoLLM, ask: Callable[[], list[R]], failed: Callable[[str], list[R]]
) -> list[R]:
    """`ask()`, or where memory runs out in it `failed(reason)`: for questions that are asked as a whole or not at all."""
    try:
        return ask()
    except Exception as error:
        if not out_of_memory(error):
            raise
    free_memory()
    return failed(too_large(model))


def too_large(model: VideoLLM) -> str:
    """The reason for an error record; without torch's own figures, which differ from run to run."""
    return f"out of memory: too large for {model.decoder.device.type} even alone"


def free_memory() -> None:
    """What nobody holds any more goes back, also from torch's own store of freed blocks."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()

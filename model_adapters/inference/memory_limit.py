"""Splits work that does not fit into memory.

The batch is halved first, then the interventions. A question that still does not fit has failed.
The run continues, and every question that fits alone is answered. Half a batch gives the same
answers as the whole one, within the noise of its precision.
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
"""Parts of the messages of torch's RuntimeErrors on devices without an exception type for memory.
"""


def answer_within_memory(
    model: VideoLLM, prepared: Sequence[Prepared], interventions: Sequence[Intervention]
) -> list[list[Record]]:
    """As `answering.answer`, in as many parts as memory requires.

    A question that does not fit alone has failed. Raises as `answer`, except out-of-memory.
    """
    return begin_within_memory(model, prepared, interventions)()


def begin_within_memory(
    model: VideoLLM, prepared: Sequence[Prepared], interventions: Sequence[Intervention]
) -> Callable[[], list[list[Record]]]:
    """As `answer_within_memory`, in two halves like `answering.begin`."""
    try:
        return begin(model, prepared, interventions)
    except Exception as error:
        if not out_of_memory(error):
            raise
    free_memory()  # not before: until here the error held the stack frames that hold the tensors
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
    """True if `error` means that memory ran out, on any device."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)
    )


def unless_too_large(
    model: VideoLLM, ask: Callable[[], list[R]], failed: Callable[[str], list[R]]
) -> list[R]:
    """`ask()`, or `failed(reason)` if memory runs out in it."""
    try:
        return ask()
    except Exception as error:
        if not out_of_memory(error):
            raise
    free_memory()
    return failed(too_large(model))


def too_large(model: VideoLLM) -> str:
    """The reason in an error record; without torch's figures, which differ from run to run."""
    return f"out of memory: too large for {model.decoder.device.type} even alone"


def free_memory() -> None:
    """Releases unreferenced memory, including the blocks that torch keeps for reuse."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()

"""Splits work that does not fit into memory.

The batch is halved first, then the interventions. A question that still does not fit has failed.
The run continues, and every question that fits alone is answered. Half a batch gives the same
answers as the whole one, within the noise of its precision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from mapflow.model_adapters.device_memory import free_memory, out_of_memory
from mapflow.model_adapters.inference.answering import begin, failed
from mapflow.model_adapters.inference.batch_size import BatchSize
from mapflow.model_adapters.interventions import Intervention
from mapflow.model_adapters.video_llm import Prepared, VideoLLM
from mapflow.results.records.record import Record

R = TypeVar("R")


def answer_within_memory(
    model: VideoLLM, prepared: Sequence[Prepared], interventions: Sequence[Intervention]
) -> list[list[Record]]:
    """As `answering.answer`, in as many parts as memory requires.

    A question that does not fit alone has failed. Raises as `answer`, except out-of-memory.
    """
    return begin_within_memory(model, prepared, interventions)()


def begin_within_memory(
    model: VideoLLM,
    prepared: Sequence[Prepared],
    interventions: Sequence[Intervention],
    size: BatchSize | None = None,
) -> Callable[[], list[list[Record]]]:
    """As `answer_within_memory`, in two halves like `answering.begin`; `size` learns what fits."""
    size = size or BatchSize()
    try:
        begun = begin(model, prepared, interventions)
        size.fitted(len(prepared))
        return begun
    except Exception as error:
        if not out_of_memory(error):
            raise
    size.too_large(len(prepared))
    free_memory()
    if len(prepared) > 1:
        half = len(prepared) // 2
        first, second = (
            begin_within_memory(model, part, interventions, size)
            for part in (prepared[:half], prepared[half:])
        )
        return lambda: [*first(), *second()]
    if len(interventions) > 1:
        half = len(interventions) // 2
        first, second = (
            begin_within_memory(model, prepared, part, size)
            for part in (interventions[:half], interventions[half:])
        )
        return lambda: [[*left, *right] for left, right in zip(first(), second(), strict=True)]
    return lambda: [[failed(prepared[0].question, interventions[0], too_large(model))]]


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

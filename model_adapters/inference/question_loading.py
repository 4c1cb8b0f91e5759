"""Questions made ready ahead of the model: decoded, resized, normalised and pinned by background threads.

How many threads follows the cores: beside a GPU all of them, shared among the host's processes; beside a model that
itself computes on the CPU, two. How far ahead follows memory. Knows no intervention and nothing of lmms-eval.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch

from mapflow.model_adapters.device_copies import bytes_held, pinned
from mapflow.model_adapters.inference.prefetch import prefetch
from mapflow.model_adapters.video_llm import Prepared, VideoLLM
from mapflow.results.contract.question import Question

Item = TypeVar("Item")

MOST_THREADS = 16
"""Of one process; more take turns at Python's lock, and each holds a decoder and its clip's frames."""

MOST_BYTES = 4 * 2**30
"""Of prepared questions in one process, all of it pinned: 8 frames of 336² pixels are 11 MB."""


def load_ahead(
    model: VideoLLM, items: Iterable[Item], question_of: Callable[[Item], Question]
) -> Iterator[tuple[Item, Prepared | Exception]]:
    """(item, what `model.prepare` makes of its question), in order; an Exception that it raises in the result's place."""
    if model.decoder.device.type != "cuda":
        return prefetch(items, lambda item: model.prepare(question_of(item)))
    threads = loading_threads(
        len(os.sched_getaffinity(0)), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    )
    return prefetch(
        items,
        lambda item: _pinned(model.prepare(question_of(item))),
        depth=2 * threads,  # a clip that takes twice as long as the others holds nobody up
        threads=threads,
        weigh=bytes_held,
        most=MOST_BYTES,
    )


def loading_threads(cores: int, processes: int) -> int:
    """For one of `processes` on a host of `cores`: its share, at least 2 and at most MOST_THREADS."""
    return min(max(cores // max(processes, 1), 2), MOST_THREADS)


def _pinned(prepared: Prepared) -> Prepared:
    with torch.inference_mode():
        return pinned(prepared)

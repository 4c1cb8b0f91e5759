"""Background threads prepare the next questions: they decode, resize, normalise and pin the frames.

Beside a GPU there is one thread per core, shared among the processes of the host; beside a model
that computes on the CPU there are two. Memory limits how far ahead they work.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import torch

from mapflow.model_adapters.device_copies import bytes_held, pinned
from mapflow.model_adapters.inference.prefetch import prefetch
from mapflow.model_adapters.video_llm import Prepared, VideoLLM
from mapflow.results.contract.question import Question
from mapflow.results.runs.processes import processes

MOST_THREADS = 16
"""Per process.

More threads compete for Python's lock, and each holds a decoder and the frames of a clip.
"""

MOST_BYTES = 4 * 2**30
"""Prepared questions of one process, in pinned memory; 8 frames of 336² pixels are 11 MB."""


def load_ahead(
    model: VideoLLM, questions: Iterable[Question]
) -> Iterator[tuple[Question, Prepared | Exception]]:
    """Each question with the result of `model.prepare`, in order; an Exception takes the result's
    place.
    """
    if model.decoder.device.type != "cuda":
        return prefetch(questions, model.prepare)
    threads = loading_threads(len(os.sched_getaffinity(0)), processes().local_world)
    return prefetch(
        questions,
        lambda question: _pinned(model.prepare(question)),
        depth=2
        * threads,  # a clip that takes twice as long as the others does not delay the device
        threads=threads,
        weigh=bytes_held,
        most=MOST_BYTES,
    )


def loading_threads(cores: int, processes: int) -> int:
    """Threads of one of `processes` on a host: its share of `cores`, at least 2, at most
    MOST_THREADS.
    """
    return min(max(cores // max(processes, 1), 2), MOST_THREADS)


def _pinned(prepared: Prepared) -> Prepared:
    with torch.inference_mode():
        return pinned(prepared)

"""Copies between host and device that nobody waits for: pinned on the way in, an event on the way out.

Pageable memory is copied twice, and the caller waits; pinned memory is copied by the device while both work on. On a CPU
nothing here does anything. Knows no question and no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Shaped
from torch import Tensor

from mapflow.model_adapters.video_llm import Prepared


def pinned(prepared: Prepared) -> Prepared:
    """The same with its tensors in pinned memory. For the thread that loads: pinning costs milliseconds."""
    vision = {name: value.pin_memory() for name, value in prepared.vision.items()}
    return replace(prepared, input_ids=prepared.input_ids.pin_memory(), vision=vision)


def bytes_held(prepared: Prepared) -> int:
    """What its tensors take."""
    return prepared.input_ids.nbytes + sum(value.nbytes for value in prepared.vision.values())


def to_device(
    tensor: Shaped[Tensor, "*shape"], device: torch.device | str, dtype: torch.dtype | None = None
) -> Shaped[Tensor, "*shape"]:
    """Bytes first, then the cast where it is fast; returns before a pinned tensor has arrived."""
    return tensor.to(device, non_blocking=True).to(dtype or tensor.dtype)


class AsyncHostCopy:
    """Tensors on their way to the host. `wait()` returns them once they are there; work enqueued later is not waited for."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._tensors = [tensor.to("cpu", non_blocking=True) for tensor in tensors]
        devices = {tensor.device for tensor in tensors if tensor.is_cuda}
        self._events = [torch.cuda.current_stream(device).record_event() for device in devices]

    def wait(self) -> list[Tensor]:
        for event in self._events:
            event.synchronize()
        return self._tensors

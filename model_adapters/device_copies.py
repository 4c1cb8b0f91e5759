"""Asynchronous copies between host and device.

The caller waits while pageable memory is copied, twice. Pinned memory is copied while host and
device continue to work; an event tells when a copy to the host is complete. On a CPU these
functions copy nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Shaped
from torch import Tensor

from mapflow.model_adapters.video_llm import Prepared


def pinned(prepared: Prepared) -> Prepared:
    """The same in pinned memory. Takes milliseconds: call it in the loading thread."""
    vision = {name: value.pin_memory() for name, value in prepared.vision.items()}
    return replace(prepared, input_ids=prepared.input_ids.pin_memory(), vision=vision)


def bytes_held(prepared: Prepared) -> int:
    """Bytes of its tensors."""
    return prepared.input_ids.nbytes + sum(value.nbytes for value in prepared.vision.values())


def to_device(
    tensor: Shaped[Tensor, "*shape"], device: torch.device | str, dtype: torch.dtype | None = None
) -> Shaped[Tensor, "*shape"]:
    """Copies, then casts on the device; returns before a pinned tensor has arrived."""
    return tensor.to(device, non_blocking=True).to(dtype or tensor.dtype)


class AsyncHostCopy:
    """Copies tensors to the host; `wait()` returns them without waiting for later work."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._tensors = [tensor.to("cpu", non_blocking=True) for tensor in tensors]
        devices = {tensor.device for tensor in tensors if tensor.is_cuda}
        self._events = [torch.cuda.current_stream(device).record_event() for device in devices]

    def wait(self) -> list[Tensor]:
        for event in self._events:
            event.synchronize()
        return self._tensors

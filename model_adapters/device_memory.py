"""Memory of a device that has run out: how to recognise it, and how to release what is left."""

from __future__ import annotations

import gc

import torch

SIGNS = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""Parts of the messages of torch's RuntimeErrors on devices without an exception type for memory.
"""


def out_of_memory(error: BaseException) -> bool:
    """True if `error` means that memory ran out, on any device."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)
    )


def free_memory() -> None:
    """Releases unreferenced memory, including the blocks that torch keeps for reuse.

    Call it after the handler of the error has ended: the error holds the stack frames that hold the
    tensors.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()

"""Torch's types for annotations, without importing torch.

Torch takes seconds to import, and parsing an intervention does not need it. Segment-level matrices
of the language are numpy arrays; the few functions that return tensors over tokens import torch
when they are called.
"""

from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import torch
    from torch import Tensor as Tensor

    Device: TypeAlias = torch.device | str
else:  # jaxtyping still checks shapes and element types of `Bool[Any, "query key"]`
    Tensor = Device = Any

"""The attention edges that a model has for one prompt, before any intervention.

Most decoders are causal: a query attends to all keys up to its own position. Sliding windows and
chunks remove some of these edges, and images may attend to themselves in both directions. Cuts
remove edges from those that exist, so counts, random blocking and checks look here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int

from mapflow.model_adapters.interventions.language.tensors import Tensor


class OwnEdges:
    """The model's own mask of each 0-based layer, True where an edge exists.

    None stands for plain causal attention, which needs no mask. Layers with the same mask share one
    tensor.
    """

    def __init__(self, masks: Sequence[Bool[Tensor, "query key"] | None]) -> None:
        self.masks = tuple(masks)
        distinct = {id(mask): mask for mask in masks if mask is not None}
        self._totals = {key: int(mask.sum()) for key, mask in distinct.items()}
        self._pairs: dict[tuple[int, bytes], Int[np.ndarray, "target source"]] = {}
        self._later = {key for key, mask in distinct.items() if bool(mask.triu(1).any())}

    @property
    def causal(self) -> bool:
        """Whether no layer attends to later keys."""
        return not self._later

    def is_causal(self, layer: int) -> bool:
        """Whether a layer does not attend to later keys."""
        return id(self.masks[layer]) not in self._later

    def mask(self, layer: int, n: int) -> Bool[Tensor, "query key"]:
        """The edges of a layer for a prompt of `n` positions, on the CPU."""
        import torch

        own = self.masks[layer]
        return torch.ones(n, n, dtype=torch.bool).tril() if own is None else own.cpu()

    def total(self, layer: int, n: int) -> int:
        """Number of edges of a layer."""
        own = self.masks[layer]
        return n * (n + 1) // 2 if own is None else self._totals[id(own)]

    def pairs(
        self, layer: int, segment_of: Int[np.ndarray, " n"], n_segments: int
    ) -> Int[np.ndarray, "target source"] | None:
        """Number of edges between every two segments; None for plain causal attention."""
        import torch

        own = self.masks[layer]
        if own is None:
            return None
        key = (id(own), segment_of.tobytes())
        if key not in self._pairs:
            index = torch.from_numpy(segment_of).to(own.device)
            member = torch.nn.functional.one_hot(index, n_segments)
            # at most n per entry, which float32 holds exactly; their sums need float64
            keys = (own.float() @ member.float()).double()
            self._pairs[key] = (member.T.double() @ keys).long().cpu().numpy()
        return self._pairs[key]

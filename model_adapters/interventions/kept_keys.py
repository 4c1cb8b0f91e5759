"""KeptKeys: a cache without the keys and values that nobody will read again.

Every generated row reads the prompt as its last row does (design.md, Interventions). What the last row may not read in
a layer is therefore dead as soon as that layer has run: under the paper's policy all of the video, which is most of a
cache. It is dropped there and then, so that whole layers of keys exist one at a time. Several interventions on one
prompt keep the union of their keys, and a mask says which are whose; one alone needs no mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from mapflow.model_adapters.interventions.edges import Edges
from mapflow.model_adapters.interventions.intervention import Compiled
from mapflow.model_adapters.interventions.plan import AttentionPlan


class KeptKeys:
    """The active plan while one prompt is continued under `compiled`: `AttentionPlan`'s masks in the prefill, then masks over
    the keys that were kept. `bytes_whole` and `bytes_kept` count the prompt's keys and values, all layers together but those
    with caches of another kind (sliding windows), which are left alone."""

    def __init__(self, compiled: Sequence[Compiled], cache: DynamicCache, device: torch.device) -> None:
        self.plan = AttentionPlan.of(compiled, device=device)
        self.cache, self.device = cache, device
        self.bytes_whole = self.bytes_kept = 0
        self._readable = [readable_keys(compiled, layer, device) for layer in range(compiled[0].depth)]
        self._masks: dict[int, Bool[Tensor, "intervention kept"] | None] = {}

    def mask(self, layer: int, n_queries: int, n_keys: int) -> Edges | None:
        """As `AttentionPlan.mask`; where keys were dropped, `n_keys` counts the kept and the generated ones."""
        if layer not in self._masks:
            return self.plan.mask(layer, n_queries, n_keys)
        kept = self._masks[layer]
        if kept is None:
            return None
        generated = kept.new_ones(len(kept), n_keys - kept.shape[1])
        return Edges(torch.cat([kept, generated], 1)[:, None, None], may_be_empty=False)

    @contextmanager
    def dropping(self, layers: nn.ModuleList) -> Iterator[None]:
        """Hooks for the prefill that thin each layer's cache once the layer has run; removed also by an exception."""
        with ExitStack() as stack:
            for number, layer in enumerate(layers):

                def thin(module: nn.Module, args: Any, output: Any, number: int = number) -> None:
                    self._thin(number)

                stack.callback(layer.register_forward_hook(thin).remove)
            yield

    def _thin(self, number: int) -> None:
        layer, readable = self.cache.layers[number], self._readable[number]
        # exactly this class: others count their keys (sliding windows) and would miss some
        if type(layer) is not DynamicLayer or layer.keys is None or layer.values is None:
            return
        self.bytes_whole += layer.keys.nbytes + layer.values.nbytes
        somebodys = readable.any(0)
        if not somebodys.all():
            kept = somebodys.nonzero().squeeze(1)
            where = kept.to(layer.keys.device, non_blocking=True)
            layer.keys, layer.values = (part.index_select(2, where) for part in (layer.keys, layer.values))
            own = readable[:, kept]
            self._masks[number] = None if own.all() else own.to(self.device, non_blocking=True)
        self.bytes_kept += layer.keys.nbytes + layer.values.nbytes


def readable_keys(
    compiled: Sequence[Compiled], layer: int, device: torch.device | str = "cpu"
) -> Bool[Tensor, "intervention n"]:
    """Which positions of one prompt its last row, and so every generated row, may read in a 0-based layer; on the CPU.

    Random choices are drawn on `device`: they are the same on all.
    """
    rows = []
    for one in compiled:
        segment_of: Int[Tensor, " n"] = one.layout.segment_of
        row = one.reads[layer, segment_of[-1]][segment_of]
        blocked = one.blocked(layer, device)
        rows.append(row if blocked is None else row & ~blocked[-1].cpu())
    return torch.stack(rows)

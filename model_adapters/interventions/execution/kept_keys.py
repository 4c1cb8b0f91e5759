"""KeptKeys: a cache without the keys and values that nobody will read again.

Every generated row reads the prompt as its last row does (design.md, Interventions). What the last row may not read in
a layer is therefore dead as soon as that layer has run: under the paper's policy all of the video, which is most of a
cache. It is dropped there and then, so that whole layers of keys exist one at a time. Several interventions on one
prompt keep the union of their keys, and a mask says which are whose; one alone needs no mask.

Knows three kinds of caches: those that grow are thinned, sliding windows keep what they keep, and where a model has any
other kind (layers that read another layer's keys, say) everything stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from mapflow.model_adapters.interventions.execution.batch_masks import BatchMasks
from mapflow.model_adapters.interventions.kernels.edges import Edges
from mapflow.model_adapters.interventions.language.intervention import Compiled


class KeptKeys:
    """The active plan while one prompt is continued under `compiled`, a row of the batch each: `BatchMasks`'s masks in
    the prefill, then masks over the keys that the cache still has.

    `generated` counts the rows behind the prompt, the one about to run included: whoever runs a step says so.
    `bytes_whole` and `bytes_kept` count the prompt's keys and values in all layers, before and after.
    """

    def __init__(
        self, compiled: Sequence[Compiled], cache: DynamicCache, device: torch.device
    ) -> None:
        self.compiled, self.cache, self.device = compiled, cache, device
        self.plan = BatchMasks.of(compiled, device=device)
        self.generated = self.bytes_whole = self.bytes_kept = 0
        self._last_rows: dict[int, Bool[Tensor, "intervention n"]] = {}
        self._held: dict[int, _Held] = {}
        self._alike: dict[bytes, _Held] = {}
        self._steps: dict[tuple[bytes, int], Edges | None] = {}
        self._steps_of = 0

    def mask(self, layer: int, n_queries: int, n_keys: int) -> Edges | None:
        """As `BatchMasks.mask` in the prefill; after it, for one row, over the last `n_keys` of the prompt's keys that are
        left and the generated ones."""
        if not self.generated:
            edges = self.plan.mask(layer, n_queries, n_keys)
            if edges is not None and self._draws(layer):
                self._last_rows[layer] = edges.allowed[
                    :, 0, -1
                ].clone()  # no view: it would keep n × n alive
            return edges
        held = self._held.get(layer) or self._holds(layer, self._readable(layer))
        if held.all_theirs:
            return None
        if self._steps_of != self.generated:
            self._steps, self._steps_of = {}, self.generated
        if (held.key, n_keys) not in self._steps:
            allowed = torch.cat(
                [held.whose, held.whose.new_ones(len(held.whose), self.generated)], 1
            )
            # its own key is there: no row reads nothing
            self._steps[held.key, n_keys] = Edges(
                allowed[:, None, None, -n_keys:], may_be_empty=False
            )
        return self._steps[held.key, n_keys]

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
        layer, readable = self.cache.layers[number], self._readable(number)
        # exactly these classes: others below them keep more than keys and values, or read other layers' keys
        known = all(
            type(one) in (DynamicLayer, DynamicSlidingWindowLayer) for one in self.cache.layers
        )
        if not isinstance(layer, DynamicLayer) or layer.keys is None or layer.values is None:
            return
        self.bytes_whole += layer.keys.nbytes + layer.values.nbytes
        somebodys = readable.any(0)
        if known and type(layer) is DynamicLayer and not somebodys.all():
            kept = somebodys.nonzero().squeeze(1)
            where = kept.to(layer.keys.device, non_blocking=True)
            layer.keys, layer.values = (
                part.index_select(2, where) for part in (layer.keys, layer.values)
            )
            readable = readable[:, kept]
        self._holds(number, readable)
        self.bytes_kept += layer.keys.nbytes + layer.values.nbytes

    def _holds(self, layer: int, whose: Bool[Tensor, "intervention kept"]) -> _Held:
        """Layers whose keys belong to the same rows share one mask."""
        key = whose.numpy().tobytes()
        if key not in self._alike:
            self._alike[key] = _Held(
                key, whose.to(self.device, non_blocking=True), bool(whose.all())
            )
        self._held[layer] = self._alike[key]
        return self._held[layer]

    def _draws(self, layer: int) -> bool:
        return any(one.budget and one.budget[layer] for one in self.compiled)

    def _readable(self, layer: int) -> Bool[Tensor, "intervention n"]:
        """As `readable_keys`. What random blocking drew is taken from the prefill's mask: drawing takes longer."""
        if self._draws(layer):
            return self._last_rows[layer].cpu()
        return readable_keys(self.compiled, layer)


@dataclass(frozen=True)
class _Held:
    """`whose[i, k]`: may intervention i read the k-th of the prompt's keys that a layer still has?"""

    key: bytes
    whose: Bool[Tensor, "intervention kept"]
    all_theirs: bool


def readable_keys(
    compiled: Sequence[Compiled], layer: int, device: torch.device | str = "cpu"
) -> Bool[Tensor, "intervention n"]:
    """Which positions of one prompt its last row, and so every generated row, may read in a 0-based layer; on the CPU.

    Random choices are drawn on `device`: they are the same on all.
    """
    rows = []
    for one in compiled:
        segment_of = one.layout.segment_of
        row = torch.from_numpy(one.allowed[layer, segment_of[-1]][segment_of])
        blocked = one.blocked(layer, device)
        rows.append(row if blocked is None else row & ~blocked[-1].cpu())
    return torch.stack(rows)


def keys_kept(compiled: Sequence[Compiled], device: torch.device | str = "cpu") -> tuple[int, int]:
    """How many of one prompt's keys decoding keeps, and how many there are, over all layers that run: as a ratio, what is
    left of a cache that grows. Of several interventions the union, in each of their rows.
    """
    depth = compiled[0].depth
    kept = sum(int(readable_keys(compiled, layer, device).any(0).sum()) for layer in range(depth))
    return kept, depth * len(compiled[0].layout)

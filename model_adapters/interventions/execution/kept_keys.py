"""KeptKeys: a cache without the prompt's unused keys and values.

Every generated position attends to the prompt as the last prompt position does. So the keys that
are cut for the last position in a layer are unused as soon as that layer has run: under the
paper's policy all of the video, which is most of a cache. They are dropped at once, so that only
one layer at a time holds all keys. Several interventions on one prompt keep the union of their
keys, under a mask; one alone needs none.

Growing caches are thinned and sliding windows are left as they are. If a model has any other kind
of cache (layers that share another layer's keys, for example), everything is kept.
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
from mapflow.model_adapters.interventions.kernels.edges import DenseEdges, Edges
from mapflow.model_adapters.interventions.language.intervention import Compiled


class KeptKeys:
    """The masks while one prompt is continued, with one row of the batch per intervention.

    These are `BatchMasks` in the prefill, then masks over the keys that the cache still has.
    `generated` counts the positions after the prompt, including the one about to run; the caller
    sets it before every step. `bytes_whole` and `bytes_kept` count the prompt's keys and values in
    all layers, before and after dropping.
    """

    def __init__(
        self, compiled: Sequence[Compiled], cache: DynamicCache, device: torch.device
    ) -> None:
        self.compiled, self.cache, self.device = compiled, cache, device
        self.prefill = BatchMasks.of(compiled, device=device)
        self.generated = self.bytes_whole = self.bytes_kept = 0
        self._last_position: dict[int, Bool[Tensor, "intervention n"]] = {}
        self._held: dict[int, _Held] = {}
        self._alike: dict[bytes, _Held] = {}
        self._steps: dict[tuple[bytes, int], Edges | None] = {}
        self._steps_of = 0

    def mask(self, layer: int, n_queries: int, n_keys: int) -> Edges | None:
        """As `BatchMasks.mask` in the prefill.

        After it, the edges of one position over the last `n_keys` of the kept and the generated
        keys.
        """
        if not self.generated:
            edges = self.prefill.mask(layer, n_queries, n_keys)
            if edges is not None and self._is_random(layer):
                # a copy: a view would keep the n × n mask alive
                self._last_position[layer] = edges.allowed[:, 0, -1].clone()
            return edges
        held = self._held.get(layer) or self._holds(layer, self._allowed(layer))
        if held.all_allowed:
            return None
        if self._steps_of != self.generated:
            self._steps, self._steps_of = {}, self.generated
        if (held.key, n_keys) not in self._steps:
            allowed = torch.cat(
                [held.allowed, held.allowed.new_ones(len(held.allowed), self.generated)], 1
            )
            # never empty: a position attends to itself
            self._steps[held.key, n_keys] = DenseEdges(
                allowed[:, None, None, -n_keys:], may_be_empty=False
            )
        return self._steps[held.key, n_keys]

    @contextmanager
    def dropping(self, layers: nn.ModuleList) -> Iterator[None]:
        """Hooks for the prefill that drop each layer's unused keys once the layer has run."""
        with ExitStack() as stack:
            for number, layer in enumerate(layers):

                def thin(module: nn.Module, args: Any, output: Any, number: int = number) -> None:
                    self._thin(number)

                stack.callback(layer.register_forward_hook(thin).remove)
            yield

    def _thin(self, number: int) -> None:
        layer, allowed = self.cache.layers[number], self._allowed(number)
        # exactly these classes: subclasses hold more than keys, or share other layers' keys
        known = all(
            type(one) in (DynamicLayer, DynamicSlidingWindowLayer) for one in self.cache.layers
        )
        if not isinstance(layer, DynamicLayer) or layer.keys is None or layer.values is None:
            return
        self.bytes_whole += layer.keys.nbytes + layer.values.nbytes
        used = allowed.any(0)
        if known and type(layer) is DynamicLayer and not used.all():
            kept = used.nonzero().squeeze(1)
            where = kept.to(layer.keys.device, non_blocking=True)
            layer.keys, layer.values = (
                part.index_select(2, where) for part in (layer.keys, layer.values)
            )
            allowed = allowed[:, kept]
        self._holds(number, allowed)
        self.bytes_kept += layer.keys.nbytes + layer.values.nbytes

    def _holds(self, layer: int, allowed: Bool[Tensor, "intervention kept"]) -> _Held:
        """Layers with the same allowed keys share one mask."""
        key = allowed.numpy().tobytes()
        if key not in self._alike:
            self._alike[key] = _Held(
                key, allowed.to(self.device, non_blocking=True), bool(allowed.all())
            )
        self._held[layer] = self._alike[key]
        return self._held[layer]

    def _is_random(self, layer: int) -> bool:
        return any(one.draw(layer) is not None for one in self.compiled)

    def _allowed(self, layer: int) -> Bool[Tensor, "intervention n"]:
        """As `allowed_keys`. Random edges come from the prefill's mask; drawing is slower."""
        if self._is_random(layer):
            return self._last_position[layer].cpu()
        return allowed_keys(self.compiled, layer)


@dataclass(frozen=True)
class _Held:
    """`allowed[i, k]`: whether intervention i allows the k-th of the prompt's keys that a layer
    has.
    """

    key: bytes
    allowed: Bool[Tensor, "intervention kept"]
    all_allowed: bool


def allowed_keys(
    compiled: Sequence[Compiled], layer: int, device: torch.device | str = "cpu"
) -> Bool[Tensor, "intervention n"]:
    """The keys of one prompt that its last position may attend to in a 0-based layer, on the CPU.

    These are also the keys of every generated position. Random edges are drawn on `device`; they
    are the same on all devices.
    """
    rows = []
    for one in compiled:
        segment_of = one.layout.segment_of
        row = torch.from_numpy(one.allowed[layer, segment_of[-1]][segment_of])
        blocked = one.blocked(layer, device)
        rows.append(row if blocked is None else row & ~blocked[-1].cpu())
    return torch.stack(rows)


def keys_kept(compiled: Sequence[Compiled], device: torch.device | str = "cpu") -> tuple[int, int]:
    """The number of one prompt's keys that decoding keeps, and of all its keys.

    Both are sums over all layers that run. For several interventions it is the union of their keys.
    """
    depth = compiled[0].depth
    kept = sum(int(allowed_keys(compiled, layer, device).any(0).sum()) for layer in range(depth))
    return kept, depth * len(compiled[0].layout)

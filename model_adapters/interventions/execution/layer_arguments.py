"""The inputs of one call of a decoder layer, besides hidden states, for some positions.

`StretchIndex` turns a schedule's stretches into positions. `PositionArguments` reduces the
layer's arguments, as the model's own forward passed them, to these positions. So every family's
positions and masks (rotary tables of any kind, sliding windows) work unchanged. The cache
stand-ins take a cache's place for one call: in `update`, every attention module of transformers
hands over its keys and values, and receives those that its queries attend to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mapflow.results.contract.errors import MapflowError

Where = slice | Tensor
"""Places along one axis: a slice, which makes a view, where they are contiguous."""

Keys = Float[Tensor, "_ kv_heads _ dim"]  # branches and positions differ between arguments
POSITION_AXIS = {
    "position_embeddings": -2,
    "position_ids": -1,
    "cache_position": -1,
    "attention_mask": -2,
}
"""The axis of an argument that counts positions. A mask's last axis counts keys besides."""


class NotIncremental(MapflowError):
    """A model whose layers cannot run for some positions alone."""


class StretchIndex:
    """Positions of one prompt by stretches of `sizes` positions; index tensors live on `device`.

    Each set of places is worked out once.
    """

    def __init__(self, sizes: Int[np.ndarray, " stretch"], device: torch.device) -> None:
        self.sizes, self.device = sizes, device
        self.stretch_of = np.repeat(np.arange(len(sizes)), sizes)
        self._places: dict[tuple[bytes, bytes | int], Where] = {}
        self._tensors: dict[bytes, tuple[Tensor, Tensor]] = {}

    def numbers(self, chosen: Bool[np.ndarray, " stretch"]) -> Int[np.ndarray, " position"]:
        """Positions in the prompt, ascending."""
        return chosen[self.stretch_of].nonzero()[0]

    def count(self, chosen: Bool[np.ndarray, " stretch"]) -> int:
        return int(self.sizes[chosen].sum())

    def within(
        self, inner: Bool[np.ndarray, " stretch"], outer: Bool[np.ndarray, " stretch"]
    ) -> Where:
        """The places of `inner` positions in a tensor of `outer` positions, a superset."""
        key = (inner.tobytes(), outer.tobytes())
        if key not in self._places:
            place = outer[self.stretch_of].cumsum() - 1
            self._places[key] = self._where(place[self.numbers(inner)])
        return self._places[key]

    def repeated(self, chosen: Bool[np.ndarray, " stretch"], times: int) -> Where:
        """The positions in the prompt, repeated for several branches."""
        if times == 1:
            return self.within(chosen, np.ones_like(chosen))
        key = (chosen.tobytes(), times)
        if key not in self._places:
            self._places[key] = torch.from_numpy(np.tile(self.numbers(chosen), times)).to(
                self.device, non_blocking=True
            )
        return self._places[key]

    def positions(
        self, chosen: Bool[np.ndarray, " stretch"]
    ) -> tuple[Int[Tensor, " position"], Int[Tensor, " position"]]:
        """The positions and the stretch of each, on the device."""
        key = chosen.tobytes()
        if key not in self._tensors:
            numbers = self.numbers(chosen)
            self._tensors[key] = (
                torch.from_numpy(numbers).to(self.device, non_blocking=True),
                torch.from_numpy(self.stretch_of[numbers]).to(self.device, non_blocking=True),
            )
        return self._tensors[key]

    def places(self, numbers: Sequence[int]) -> Where:
        """Any numbers along an axis."""
        key = (b"", np.array(numbers).tobytes())
        if key not in self._places:
            self._places[key] = self._where(np.array(numbers))
        return self._places[key]

    def _where(self, places: Int[np.ndarray, " place"]) -> Where:
        if len(places) and (np.diff(places) == 1).all():
            return slice(int(places[0]), int(places[-1]) + 1)
        return torch.from_numpy(places).to(self.device, non_blocking=True)


def take(tensor: Tensor, dim: int, where: Where) -> Tensor:
    """The elements at `where` along `dim`: a view if they are contiguous."""
    if isinstance(where, slice):
        return tensor.narrow(dim, where.start, where.stop - where.start)
    return tensor.index_select(dim, where.to(tensor.device, non_blocking=True))


class PositionArguments:
    """One layer's arguments. Those that several layers share are reduced to positions once."""

    def __init__(self, arguments: Mapping[str, Any], cut: dict[Any, Any] | None = None) -> None:
        self.arguments = arguments
        self._cut: dict[Any, Any] = {} if cut is None else cut

    def next_layer(self, arguments: Mapping[str, Any]) -> PositionArguments:
        return PositionArguments(arguments, self._cut)

    def of(self, queries: Where, keys: Sequence[Where] | None) -> dict[str, Any]:
        """For the positions `queries` alone.

        A mask keeps the positions `keys`, in that order; None means that the call needs no mask.
        Raises NotIncremental for a tensor whose position axis is unknown.
        """
        return {
            name: self._cut_down(name, value, queries, keys)
            for name, value in self.arguments.items()
        }

    def _cut_down(self, name: str, value: Any, queries: Where, keys: Sequence[Where] | None) -> Any:
        if isinstance(value, tuple | list):
            return tuple(self._cut_down(name, part, queries, keys) for part in value)
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if not isinstance(value, Tensor):
            raise NotIncremental(
                f"decoder layers of this model share a {type(value).__name__} {name!r}, which the"
                " incremental executor cannot divide: run its interventions one by one"
            )
        if name not in POSITION_AXIS:
            raise NotIncremental(
                f"decoder layers of this model take a tensor {name!r}, whose position axis is"
                " unknown to the incremental executor: run its interventions one by one"
            )
        masked = name == "attention_mask"
        if masked and keys is None:
            return None
        key = (id(value), _key(queries), tuple(map(_key, keys or ())) if masked else None)
        if key not in self._cut:
            chosen = take(value, value.ndim + POSITION_AXIS[name], queries)
            if masked and keys is not None:
                chosen = torch.cat([take(chosen, value.ndim - 1, part) for part in keys], -1)
            # kept with its origin, so that no other object gets the origin's id
            self._cut[key] = (value, chosen)
        return self._cut[key][1]


def _key(where: Where) -> Any:
    return (where.start, where.stop) if isinstance(where, slice) else id(where)


class KeysKnown(Exception):
    """Ends a layer's call as soon as its keys and values are computed."""


class _StandIn:
    """A cache of which layers may ask for `update` alone."""

    def __getattr__(self, name: str) -> Any:
        raise NotIncremental(
            f"decoder layers of this model ask their cache for {name!r}, which the incremental"
            " executor does not know: run its interventions one by one"
        )


class KeyValueProbe(_StandIn):
    """Records the layer's keys and values and ends the call."""

    keys: Keys
    values: Keys

    def update(self, keys: Keys, values: Keys, *_: Any, **__: Any) -> tuple[Keys, Keys]:
        self.keys, self.values = keys, values
        raise KeysKnown


class RecordingCache(_StandIn):
    """Records the layer's keys and values, and returns them unchanged."""

    keys: Keys
    values: Keys

    def update(self, keys: Keys, values: Keys, *_: Any, **__: Any) -> tuple[Keys, Keys]:
        self.keys, self.values = keys, values
        return keys, values


class ReplayCache(_StandIn):
    """Returns given keys and values, the queries' own among them, instead of the layer's."""

    def __init__(self, keys: Keys, values: Keys) -> None:
        self.keys, self.values = keys, values

    def update(self, keys: Keys, values: Keys, *_: Any, **__: Any) -> tuple[Keys, Keys]:
        return self.keys, self.values


class PrefixedCache(_StandIn):
    """Returns the trunk's keys and values, which all branches share, before the layer's."""

    def __init__(self, keys: Keys, values: Keys) -> None:
        self.keys, self.values = keys, values

    def update(self, keys: Keys, values: Keys, *_: Any, **__: Any) -> tuple[Keys, Keys]:
        return joined(self.keys, keys), joined(self.values, values)


def joined(shared: Keys, own: Keys) -> Keys:
    """The trunk's keys before the branches' own."""
    return torch.cat([shared, own], 2)


LayerCache = KeyValueProbe | RecordingCache | ReplayCache | PrefixedCache

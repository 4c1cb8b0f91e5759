"""What a decoder layer is given besides hidden states, for some of a prompt's rows: its arguments and its "cache".

The arguments are those that the model's own forward passed to the layer, so every family's positions and masks (rotary
tables of any kind, sliding windows) come along without being known. The objects here take a cache's place for one call
of one layer: `update` is where every attention module of transformers hands over keys and values, and takes those that
its queries shall read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mapflow.model_adapters.interventions.execution.row_index import Where, take
from mapflow.results.contract.errors import MapflowError

Keys = Float[Tensor, "_ kv_heads _ dim"]  # branches and rows differ from argument to argument
ROW_AXIS = {
    "position_embeddings": -2,
    "position_ids": -1,
    "cache_position": -1,
    "attention_mask": -2,
}
"""Which axis of an argument counts rows; a mask's last axis counts keys besides."""


class NotIncremental(MapflowError):
    """A model whose layers cannot be run for some rows alone."""


class RowArguments:
    """One layer's arguments; rows of what layers have in common are picked once."""

    def __init__(self, arguments: Mapping[str, Any], picked: dict[Any, Any] | None = None) -> None:
        self.arguments = arguments
        self._picked: dict[Any, Any] = {} if picked is None else picked

    def next_layer(self, arguments: Mapping[str, Any]) -> RowArguments:
        return RowArguments(arguments, self._picked)

    def of(self, rows: Where, columns: Sequence[Where] | None) -> dict[str, Any]:
        """For those rows alone. A mask keeps the keys of `columns`, in that order; None: no mask will be asked for.

        Raises NotIncremental for a tensor of which nobody said which axis counts rows.
        """
        return {
            name: self._rows(name, value, rows, columns) for name, value in self.arguments.items()
        }

    def _rows(self, name: str, value: Any, rows: Where, columns: Sequence[Where] | None) -> Any:
        if isinstance(value, tuple | list):
            return tuple(self._rows(name, part, rows, columns) for part in value)
        if not isinstance(value, Tensor):
            return value
        if name not in ROW_AXIS:
            raise NotIncremental(
                f"decoder layers of this model take a tensor {name!r}, whose rows the incremental executor cannot tell:"
                " run its interventions one by one"
            )
        masked = name == "attention_mask"
        if masked and columns is None:
            return None
        key = (id(value), _key(rows), tuple(map(_key, columns or ())) if masked else None)
        if key not in self._picked:
            chosen = take(value, value.ndim + ROW_AXIS[name], rows)
            if masked and columns is not None:
                chosen = torch.cat([take(chosen, value.ndim - 1, part) for part in columns], -1)
            self._picked[key] = (
                value,
                chosen,
            )  # with its origin, so that no other object takes over its id
        return self._picked[key][1]


def _key(where: Where) -> Any:
    return (where.start, where.stop) if isinstance(where, slice) else id(where)


class KeysKnown(Exception):
    """Ends a layer's call as soon as its keys and values are computed."""


class KeyValueProbe:
    """Notes the layer's keys and values and ends the call."""

    keys: Keys
    values: Keys

    def update(self, keys: Keys, values: Keys, *_: Any, **__: Any) -> tuple[Keys, Keys]:
        self.keys, self.values = keys, values
        raise KeysKnown


class RecordingCache:
    """Notes the layer's keys and values; the queries read them alone."""

    keys: Keys
    values: Keys

    def update(self, keys: Keys, values: Keys, *_: Any, **__: Any) -> tuple[Keys, Keys]:
        self.keys, self.values = keys, values
        return keys, values


class ReplayCache:
    """The queries read these; their own are among them."""

    def __init__(self, keys: Keys, values: Keys) -> None:
        self.keys, self.values = keys, values

    def update(self, keys: Keys, values: Keys, *_: Any, **__: Any) -> tuple[Keys, Keys]:
        return self.keys, self.values


class PrefixedCache:
    """The queries read the trunk's keys, which all branches share, besides their own."""

    def __init__(self, keys: Keys, values: Keys) -> None:
        self.keys, self.values = keys, values

    def update(self, keys: Keys, values: Keys, *_: Any, **__: Any) -> tuple[Keys, Keys]:
        return joined(self.keys, keys), joined(self.values, values)


def joined(shared: Keys, own: Keys) -> Keys:
    """The trunk's keys before the branches' own."""
    return torch.cat([shared, own], 2)


LayerCache = KeyValueProbe | RecordingCache | ReplayCache | PrefixedCache

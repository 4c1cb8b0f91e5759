"""InternVL's vision tower: from the authors' tensors to those of transformers' own class.

The authors' checkpoints hold each layer's queries, keys and values in one tensor and name most
modules differently. Tower layers that the network does not run are skipped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from mapflow.model_adapters.checkpoints.network_loading import Weights

TOWER = (
    ("embeddings.class_embedding", "embeddings.cls_token"),
    ("embeddings.position_embedding", "embeddings.position_embeddings"),
    ("embeddings.patch_embedding.", "embeddings.patch_embeddings.projection."),
)
LAYER = (
    ("attn.proj.", "attention.projection_layer."),
    ("attn.q_norm.", "attention.q_norm."),
    ("attn.k_norm.", "attention.k_norm."),
    ("norm1.", "layernorm_before."),
    ("norm2.", "layernorm_after."),
    ("ls1", "lambda_1"),
    ("ls2", "lambda_2"),
)
FUSED = ("q_proj", "k_proj", "v_proj")
IN_LAYER = re.compile(r"encoder\.layers\.(?P<layer>\d+)\.(?P<rest>.+)")
PREFIX = "vision_model."


class InternVLWeights:
    """`released` under the names of a network with `n_vision_layers` tower layers.

    Names outside the tower and unknown names stay as they are.
    """

    def __init__(self, released: Weights, n_vision_layers: int) -> None:
        self._released = released
        self._pieces = {
            name: (source, piece)
            for source in released.shapes
            for name, piece in _native(source, n_vision_layers)
        }

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        known = self._released.shapes
        return {
            name: known[source]
            if piece is None
            else (known[source][0] // len(FUSED), *known[source][1:])
            for name, (source, piece) in self._pieces.items()
        }

    def read(self, name: str) -> Tensor:
        source, piece = self._pieces[name]
        value = self._released.read(source)
        return value if piece is None else value.chunk(len(FUSED))[piece]


def _native(source: str, n_vision_layers: int) -> list[tuple[str, int | None]]:
    """(name in the network, third of the tensor or None for all of it) of an authors' tensor."""
    if not source.startswith(PREFIX):
        return [(source, None)]
    name = source.removeprefix(PREFIX)
    match = IN_LAYER.fullmatch(name)
    if not match:
        return [(PREFIX + _exchanged(name, TOWER), None)]
    if int(match["layer"]) >= n_vision_layers:
        return []
    layer, rest = f"{PREFIX}encoder.layer.{match['layer']}.", match["rest"]
    if rest.startswith("attn.qkv."):
        leaf = rest.rpartition(".")[2]
        return [(f"{layer}attention.{part}.{leaf}", piece) for piece, part in enumerate(FUSED)]
    return [(layer + _exchanged(rest, LAYER), None)]


def _exchanged(name: str, pairs: tuple[tuple[str, str], ...]) -> str:
    return next((new + name.removeprefix(old) for old, new in pairs if name.startswith(old)), name)

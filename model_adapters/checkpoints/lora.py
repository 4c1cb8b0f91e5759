"""LoRA folders: a low-rank update of a base checkpoint, merged while the base is read.

W ← W + scale · B A (LoRA, Hu et al. 2021, eq. 3) is computed in float32 for one tensor at a time,
so no unmerged copy exists. Reads the layout of peft's `save_pretrained`: adapter_config.json and
adapter_model.safetensors. Tensors that were trained as a whole (a projector, biases, embeddings)
replace the base's. The adapted module is found by trying the prefixes that the family gives.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mapflow.model_adapters.checkpoints.declared import CONFIG, TENSORS
from mapflow.model_adapters.checkpoints.folder import missing_weights, some
from mapflow.model_adapters.checkpoints.network_loading import (
    Renames,
    SafetensorsWeights,
    Weights,
    rename,
)
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.files import read_json

# base_model.model.<module>.lora_A[.adapter].weight; embeddings have lora_embedding_A[.adapter] and
# no ".weight".
FACTOR = re.compile(
    r"(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<side>[AB])(\.default)?(\.weight)?"
)
WHOLE = re.compile(
    r"(?P<module>.+?)(\.modules_to_save)?(\.default)?(\.base_layer)?\.(?P<leaf>weight|bias)"
)
UNSUPPORTED = {
    "use_dora": "DoRA",
    "use_qalora": "QA-LoRA",
    "layer_replication": "layer replication",
}


@dataclass
class Factors:
    """The names of one module's two low-rank tensors."""

    module: str
    a: str = ""
    b: str = ""
    embedding: bool = False


class LoraWeights:
    """A base checkpoint's tensors with an adapter merged in, under the same names and shapes.

    Args:
        base: the full checkpoint.
        folder: the adapter.
        renames: pairs (checkpoint prefix, network prefix) of the family, as for the base.
        roots: prefixes to try before the adapter's module names, for adapters of a submodule.

    Raises MapflowError for an unsupported kind of adapter, or naming the tensors that do not fit
    the base.
    """

    def __init__(
        self, base: Weights, folder: Path, renames: Renames = (), roots: Sequence[str] = ("",)
    ) -> None:
        self._base = base
        self._config = _lora_config(folder)
        file = folder / TENSORS
        if not file.is_file():
            raise MapflowError(missing_weights(folder, TENSORS))
        self._adapter = SafetensorsWeights([file])
        self._factors: dict[str, Factors] = {}
        self._replaced: dict[str, str] = {}
        strangers = []
        for key in self._adapter.shapes:
            target = self._target(key.removeprefix("base_model.model."), renames, roots)
            if target is None:
                strangers.append(key)
            else:
                self._register(key, target)
        strangers += [
            pair.a or pair.b for pair in self._factors.values() if not (pair.a and pair.b)
        ]
        strangers += [
            pair.b
            for name, pair in self._factors.items()
            if pair.a and pair.b and not self._fits(name, pair)
        ]
        strangers += [
            key
            for name, key in self._replaced.items()
            if self._adapter.shapes[key] != base.shapes[name]
        ]
        if strangers:
            raise MapflowError(
                f"{file}: {len(strangers)} tensors do not fit the base checkpoint:"
                f" {some(strangers)}"
            )

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return self._base.shapes

    @property
    def changed(self) -> frozenset[str]:
        """The names of the tensors that the adapter changes."""
        return frozenset(self._factors) | frozenset(self._replaced)

    def read(self, name: str) -> Tensor:
        if name in self._replaced:
            return self._adapter.read(self._replaced[name])
        weight = self._base.read(name)
        if name not in self._factors:
            return weight
        pair = self._factors[name]
        a, b = self._adapter.read(pair.a).float(), self._adapter.read(pair.b).float()
        delta = merge_delta(a, b, self._scale(pair.module, a.shape[0]))
        transposed = pair.embedding or self._config.get("fan_in_fan_out", False)
        return weight.float() + (delta.T if transposed else delta)

    def _target(self, key: str, renames: Renames, roots: Sequence[str]) -> str | None:
        """The network's name of the tensor that `key` changes; None if the base has none."""
        match = FACTOR.fullmatch(key)
        if match:
            wanted = f"{match['module']}.weight"
        else:
            match = WHOLE.fullmatch(key)
            wanted = f"{match['module']}.{match['leaf']}" if match else key
        names = (rename(root + wanted, renames) for root in roots)
        return next((name for name in names if name in self._base.shapes), None)

    def _register(self, key: str, target: str) -> None:
        match = FACTOR.fullmatch(key)
        if not match:
            self._replaced[target] = key
            return
        pair = self._factors.setdefault(
            target, Factors(match["module"], embedding=bool(match["embedding"]))
        )
        setattr(pair, match["side"].lower(), key)

    def _fits(self, name: str, pair: Factors) -> bool:
        a, b, shape = (
            self._adapter.shapes[pair.a],
            self._adapter.shapes[pair.b],
            self._base.shapes[name],
        )
        if len(a) != 2 or len(b) != 2 or a[0] != b[1]:
            return False
        transposed = pair.embedding or self._config.get("fan_in_fan_out", False)
        return shape == ((a[1], b[0]) if transposed else (b[0], a[1]))

    def _scale(self, module: str, rank: int) -> float:
        """alpha / rank, or alpha / √rank if rank-stabilised; modules may have their own alpha."""
        patterns: Mapping[str, Any] = self._config.get("alpha_pattern") or {}
        alpha = next(
            (
                value
                for pattern, value in patterns.items()
                if re.search(rf"(^|\.){pattern}$", module)
            ),
            self._config["lora_alpha"],
        )
        return alpha / (math.sqrt(rank) if self._config.get("use_rslora") else rank)


def merge_delta(
    a: Float[Tensor, "rank inputs"], b: Float[Tensor, "outputs rank"], scale: float
) -> Float[Tensor, "outputs inputs"]:
    """The update that an adapter adds to a weight."""
    return scale * torch.mm(b, a)


def _lora_config(folder: Path) -> dict[str, Any]:
    config = read_json(folder / CONFIG)
    kind = config.get("peft_type", "LORA")
    used = [label for key, label in UNSUPPORTED.items() if config.get(key)]
    if kind != "LORA" or used:
        raise MapflowError(
            f"{folder} is an adapter of kind {(used or [kind])[0]}; only plain LoRA can be merged"
        )
    if "lora_alpha" not in config:
        raise MapflowError(f"{folder / CONFIG} has no lora_alpha")
    return config

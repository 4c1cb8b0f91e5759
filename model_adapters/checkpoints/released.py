"""A checkpoint folder in the layout that its authors released, opened: what loading is the same for in all such families.

config.json says which family it is, tokenizer.json how to tokenize, safetensors hold the weights, and a LoRA folder may
lie on top. A family adds what its network is and what its tensors are called. Nothing of the folder is executed: remote
code that a config.json points at (`auto_map`) is neither needed nor looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedTokenizerBase

from mapflow.model_adapters.checkpoints.folder import weight_files
from mapflow.model_adapters.checkpoints.lora import LoraWeights, checkpoint_identity, find_base
from mapflow.model_adapters.checkpoints.network_loading import (
    Network,
    Renames,
    SafetensorsWeights,
    Weights,
    load_network,
    resolve_dtype,
)
from mapflow.model_adapters.conversation import load_tokenizer
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.files import read_json

# Settings of a released config.json that have no say: they are decided when a network is loaded.
DECIDED = (
    "model_type",
    "architectures",
    "auto_map",
    "torch_dtype",
    "dtype",
    "attn_implementation",
    "_attn_implementation",
    "_name_or_path",
    "transformers_version",
)


@dataclass(frozen=True)
class ReleasedCheckpoint:
    """A folder, the LoRA folder on top of it (or None), its config.json and its tokenizer."""

    folder: Path
    adapter: Path | None
    config: Mapping[str, Any]
    tokenizer: PreTrainedTokenizerBase

    @classmethod
    def open(
        cls,
        path: str | Path,
        lora: str | Path | None,
        check_config: Callable[[Path, Mapping[str, Any]], None],
    ) -> ReleasedCheckpoint:
        """From a folder (or a hub name in the download cache): a full checkpoint, with or without a LoRA folder on top,
        or a LoRA folder that names its base.

        Raises MapflowError for a folder that is missing, incomplete or of another family.
        """
        folder, adapter = find_base(path, lora)
        config = read_json(folder / "config.json")
        check_config(folder, config)
        return cls(folder, adapter, config, load_tokenizer(folder))

    @cached_property
    def files(self) -> list[Path]:
        """The safetensors files of the full checkpoint."""
        return weight_files(self.folder)

    def weights(self, renames: Renames = ()) -> Weights:
        """All tensors under the network's names, the adapter merged in.

        Raises MapflowError for a damaged file and for an adapter that does not fit.
        """
        base = SafetensorsWeights(self.files, renames)
        if self.adapter is None:
            return base
        # Adapters were trained on the whole network or on its language model alone.
        return LoraWeights(base, self.adapter, renames, roots=("", "language_model."))

    def network(
        self,
        build: Callable[[Mapping[str, Any]], Network],
        weights: Weights,
        dtype: str | torch.dtype,
        device_map: str | Mapping[str, Any],
        no_split: Sequence[str],
    ) -> Network:
        """`build(config)` with the weights in place (`network_loading.load_network` has the arguments).

        Raises MapflowError where config.json describes no such network or the tensors do not fit it.
        """

        def built() -> Network:
            try:
                return build(self.config)
            except Exception as error:  # each layer below refuses wrong values in its own way
                reason = " ".join(str(error).split())
                raise MapflowError(
                    f"{self.folder / 'config.json'} describes no network of its family: {reason}"
                ) from error

        return load_network(
            built,
            weights,
            dtype=resolve_dtype(dtype, self.config, device_map),
            device_map=device_map,
            no_split=no_split,
        )

    def placeholder_id(self, key: str) -> int:
        """The video placeholder's id, which config.json states as `key`. Raises MapflowError where it is no token."""
        token = self.config.get(key)
        if not isinstance(token, int) or not 0 <= token < len(self.tokenizer):
            raise MapflowError(
                f"{self.folder}: {key} {token} of config.json is no token of tokenizer.json"
            )
        return token

    @property
    def identity(self) -> dict[str, Any]:
        """What a VideoLLM says of itself: `name`, `digest` (SHA-256 over all weights), `pathways`."""
        return checkpoint_identity(self.folder, self.adapter)


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is decided at load time."""
    return {key: value for key, value in config.items() if key not in DECIDED}


def text_config(config: Mapping[str, Any], model_type: str) -> Any:
    """A decoder's config; `model_type` where the file names none."""
    return AutoConfig.for_model(config.get("model_type", model_type), **settings(config))

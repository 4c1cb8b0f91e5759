"""Checkpoint folders in the layout that their authors released.

config.json names the architecture, tokenizer.json the tokens, safetensors files hold the weights,
and a LoRA folder may be merged in. A family adds its network and the names of its tensors. Nothing
in the folder is executed: remote code that config.json refers to (`auto_map`) is ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedTokenizerBase

from mapflow.model_adapters.checkpoints.declared import checkpoint_identity, find_base
from mapflow.model_adapters.checkpoints.folder import weight_files
from mapflow.model_adapters.checkpoints.lora import LoraWeights
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

# Settings of a config.json that are ignored: the loader decides them.
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
    """A checkpoint folder, its config.json and tokenizer, and how to load its network.

    Attributes:
        adapter: the LoRA folder to merge in, or None.
        dtype, device_map: precision and devices, see `network_loading.py`.
    """

    folder: Path
    adapter: Path | None
    config: Mapping[str, Any]
    tokenizer: PreTrainedTokenizerBase
    dtype: str | torch.dtype
    device_map: str | Mapping[str, Any]

    @classmethod
    def open(
        cls,
        path: str | Path,
        lora: str | Path | None,
        dtype: str | torch.dtype,
        device_map: str | Mapping[str, Any],
        check_config: Callable[[Path, Mapping[str, Any]], None],
    ) -> ReleasedCheckpoint:
        """Opens a full checkpoint, with or without a LoRA folder, or a LoRA folder with its base.

        `path` is a folder or a hub name in the download cache. `check_config(folder, config)`
        refuses other families before anything else is read. Raises MapflowError for a folder that
        is missing or incomplete.
        """
        folder, adapter = find_base(path, lora)
        config = read_json(folder / "config.json")
        check_config(folder, config)
        return cls(folder, adapter, config, load_tokenizer(folder), dtype, device_map)

    @cached_property
    def files(self) -> list[Path]:
        """The safetensors files of the full checkpoint."""
        return weight_files(self.folder)

    def weights(self, renames: Renames = ()) -> Weights:
        """All tensors under the network's names, with the adapter merged in.

        Raises MapflowError for a damaged file and for an adapter that does not fit.
        """
        base = SafetensorsWeights(self.files, renames)
        if self.adapter is None:
            return base
        # An adapter was trained on the whole network or on its language model.
        return LoraWeights(base, self.adapter, renames, roots=("", "language_model."))

    def network(
        self,
        build: Callable[[Mapping[str, Any]], Network],
        weights: Weights,
        no_split: Sequence[str],
    ) -> Network:
        """Builds `build(config)` and loads the weights; see `network_loading.load_network`.

        Raises MapflowError if config.json does not describe such a network or tensors do not
        fit.
        """

        def built() -> Network:
            try:
                return build(self.config)
            except Exception as error:  # transformers raises exceptions of many kinds
                reason = " ".join(str(error).split())
                raise MapflowError(
                    f"{self.folder / 'config.json'} does not describe a network of its family:"
                    f" {reason}"
                ) from error

        return load_network(
            built,
            weights,
            dtype=resolve_dtype(self.dtype, self.config, self.device_map),
            device_map=self.device_map,
            no_split=no_split,
        )

    def placeholder_id(self, key: str) -> int:
        """The placeholder's id, `key` in config.json. Raises MapflowError if it is not a token."""
        token = self.config.get(key)
        if not isinstance(token, int) or not 0 <= token < len(self.tokenizer):
            raise MapflowError(
                f"{self.folder}: {key} {token} of config.json is not a token of tokenizer.json"
            )
        return token

    @property
    def identity(self) -> dict[str, Any]:
        """The attributes `name`, `digest` and `pathways` of the VideoLLM."""
        return checkpoint_identity(self.folder, self.adapter)


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a config.json without those that the loader decides."""
    return {key: value for key, value in config.items() if key not in DECIDED}


def text_config(config: Mapping[str, Any], model_type: str) -> Any:
    """A decoder's config of transformers; `model_type` is used if the file names none."""
    return AutoConfig.for_model(config.get("model_type", model_type), **settings(config))

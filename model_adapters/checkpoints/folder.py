"""Checkpoint folders: which family a folder holds, which files its weights are in, and their digest.

Only safetensors are read; nothing is unpickled and nothing is fetched. Knows no network: `network_loading.py` puts the
tensors in place, `lora.py` merges an adapter on the way.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError

from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.files import read_json

SHARD = re.compile(r"[\w.-]+\.safetensors")

LARGEST = {
    "num_hidden_layers": 1_000,
    "num_layers": 1_000,
    "depth": 1_000,
    "image_size": 4_096,
    "max_position_embeddings": 1 << 24,
    "vocab_size": 1 << 24,
    "hidden_size": 1 << 17,
    "intermediate_size": 1 << 20,
    "_heads": 1 << 12,
    "head_dim": 1 << 16,
    "projection_dim": 1 << 20,
}
"""How a config's sizes end → the most that is believed; several times what today's largest models have."""


def find_folder(path: str | Path) -> Path:
    """The checkpoint's folder: `path` itself, or the download cache's copy of a hub name such as `byminji/NAME`.

    Nothing is fetched. Raises MapflowError, saying how to, where neither is there.
    """
    if Path(path).is_dir():
        return Path(path)
    try:
        return Path(snapshot_download(str(path), local_files_only=True))
    except HFValidationError:
        raise MapflowError(f"checkpoint folder {path} does not exist") from None
    except (OSError, ValueError):
        raise MapflowError(
            f"checkpoint folder {path} does not exist; if it is a name on the Hugging Face hub, first run: hf download {path}"
        ) from None


def architecture_of(config: Mapping[str, Any]) -> str:
    """The first of a config's `architectures`, "(none)" where it names none."""
    named = config.get("architectures")
    return named[0] if isinstance(named, list) and named and isinstance(named[0], str) else "(none)"


def check_sizes(config: Mapping[str, Any], file: Path) -> None:
    """Raises MapflowError for a size, anywhere in the config, that no model has: a network of such a size, or its tables
    of positions, would fill the memory before a single weight is compared with it."""
    for name, value in config.items():
        if isinstance(value, dict):
            check_sizes(value, file)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            most = next((most for ending, most in LARGEST.items() if name.endswith(ending)), None)
            if most is not None and not 0 <= value <= most:
                raise MapflowError(
                    f"{file}: {name}={str(value)[:40]} is outside 0..{most:,}, the sizes of real models"
                )


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a full checkpoint: one, or the shards that the index names.

    Raises MapflowError where there are none, where shards are missing, or where only pickled weights exist.
    """
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if not index.is_file():
        raise MapflowError(missing_weights(folder, single.name))
    places = read_json(index).get("weight_map")
    named = list(places.values()) if isinstance(places, dict) else []
    for name in named:
        if not isinstance(name, str) or not SHARD.fullmatch(name):
            raise MapflowError(
                f"{index} names {name!r}, which is no safetensors file in its own folder"
            )
    shards = [folder / name for name in sorted(set(named))]
    absent = [shard.name for shard in shards if not shard.is_file()]
    if absent or not shards:
        raise MapflowError(
            f"{index} names {some(absent) if absent else 'no shards'}, absent from the folder"
        )
    return shards


def missing_weights(folder: Path, wanted: str) -> str:
    """Why a folder without the file `wanted` cannot be loaded."""
    pickled = sorted(
        file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in folder.glob(pattern)
    )
    if pickled:
        return (
            f"{folder} has only pickled weights ({some(pickled)}), which are never loaded;"
            " convert them with save_pretrained(..., safe_serialization=True)"
        )
    return f"checkpoint folder {folder} has no {wanted}"


def some(names: Sequence[str], shown: int = 3) -> str:
    """The first few, and a sign that there are more."""
    return ", ".join(names[:shown]) + (", …" if len(names) > shown else "")

"""Checkpoint folders: their place, their architecture and their weight files.

Only safetensors are accepted; nothing is unpickled or downloaded. `network_loading.py` loads the
tensors, `lora.py` merges an adapter meanwhile.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.files import read_json
from mapflow.results.contract.visible_text import quoted

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
"""Ending of a setting's name → the largest accepted value, several times today's largest."""
PRECISIONS = ("float32", "bfloat16", "float16", "float64")


def find_folder(path: str | Path) -> Path:
    """The checkpoint's folder: `path`, or the download cache's copy of a hub name (`OWNER/NAME`).

    Downloads nothing. Raises MapflowError, with the command to download it, if there is neither.
    """
    if Path(path).is_dir():
        return Path(path)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(str(path), local_files_only=True))
    except HFValidationError:
        raise MapflowError(f"checkpoint folder {path} does not exist") from None
    except (OSError, ValueError):
        raise MapflowError(
            f"checkpoint folder {path} does not exist; if it is a name on the Hugging Face hub,"
            f" first run: hf download {path}"
        ) from None


def architecture_of(config: Mapping[str, Any]) -> str:
    """The first of a config's `architectures`, "(none)" if it names none."""
    named = config.get("architectures")
    return named[0] if isinstance(named, list) and named and isinstance(named[0], str) else "(none)"


def check_sizes(config: Mapping[str, Any], file: Path) -> None:
    """Raises MapflowError for a size, anywhere in the config, that no model has, and for a number
    format that is not in `PRECISIONS`.

    Such a network, or its position tables, would fill the memory before its weights are read.
    """
    for name, value in config.items():
        if isinstance(value, dict):
            check_sizes(value, file)
        elif name in ("torch_dtype", "dtype") and value is not None:
            if not isinstance(value, str) or value.removeprefix("torch.") not in PRECISIONS:
                raise MapflowError(
                    f"{file}: {name}={quoted(value)} is not a number format of weights:"
                    f" {', '.join(PRECISIONS)}"
                )
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            most = next((most for ending, most in LARGEST.items() if name.endswith(ending)), None)
            if most is not None and not 0 <= value <= most:
                raise MapflowError(
                    f"{file}: {name}={str(value)[:40]} is outside 0..{most:,}, the sizes of real"
                    " models"
                )


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a full checkpoint: one file, or the shards that the index names.

    Raises MapflowError if there are none, if shards are missing, or if only pickled weights exist.
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
                f"{index} names {name!r}, which is not a safetensors file in its own folder"
            )
    shards = [folder / name for name in sorted(set(named))]
    absent = [shard.name for shard in shards if not shard.is_file()]
    if absent or not shards:
        raise MapflowError(
            f"{index} names {some(absent) if absent else 'no shards'}, absent from the folder"
        )
    return shards


def missing_weights(folder: Path, wanted: str) -> str:
    """An error message for a folder without the file `wanted`."""
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
    """The first names, followed by "…" if there are more."""
    return ", ".join(names[:shown]) + (", …" if len(names) > shown else "")

"""What a checkpoint folder says about its model, read without its weights.

Commands ask here before torch is imported, so that a missing folder, another family's checkpoint or
a layer that the model lacks is refused at once. Loading reads the same functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mapflow.model_adapters.checkpoints.folder import (
    PRECISIONS,
    architecture_of,
    check_sizes,
    find_folder,
    missing_weights,
    weight_files,
)
from mapflow.model_adapters.checkpoints.pathways import checkpoint_pathways
from mapflow.model_adapters.interventions import PathwayRanges
from mapflow.model_adapters.progress import advance
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.files import read_json, sha256

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
"""The files of a LoRA folder."""
LANGUAGE_MODELS = ("text_config", "llm_config")
"""Entries of a config.json that describe the language model, where it is not the file itself."""


@dataclass(frozen=True)
class Declared:
    """A checkpoint folder whose config.json could be read.

    Attributes:
        adapter: the LoRA folder to merge in, or None.
        name: the checkpoint's name in records, without the family's arguments.
        architecture: the first entry of config.json's `architectures`.
        pathways: its layer ranges, None if none are known.
        n_layers: depth of the language model; None where config.json leaves it to a default.
    """

    folder: Path
    adapter: Path | None
    name: str
    architecture: str
    pathways: PathwayRanges | None
    n_layers: int | None


def declared(path: str | Path, lora: str | Path | None = None) -> Declared:
    """Raises MapflowError for a folder that is missing or names absurd sizes."""
    folder, adapter = find_base(path, lora)
    config = read_json(folder / "config.json")
    check_sizes(config, folder / "config.json")
    return Declared(
        folder,
        adapter,
        checkpoint_name(folder, adapter),
        architecture_of(config),
        checkpoint_pathways(adapter or folder),
        _n_layers(config),
    )


def check_weight_files(place: Declared) -> None:
    """Raises MapflowError if files of weights are missing, or pickled."""
    weight_files(place.folder)
    if place.adapter and not (place.adapter / TENSORS).is_file():
        raise MapflowError(missing_weights(place.adapter, TENSORS))


def check_dtype(dtype: Any) -> None:
    """Raises MapflowError for a name that is not a precision of weights; `auto` is one."""
    if isinstance(dtype, str) and dtype not in ("auto", *PRECISIONS):
        raise MapflowError(f"dtype {dtype!r} is unknown: use auto, {', '.join(PRECISIONS)}")


def find_base(path: str | Path, lora: str | Path | None) -> tuple[Path, Path | None]:
    """(base folder, adapter folder or None) of a path, which may be an adapter that names its base.

    Raises MapflowError if a folder, or an adapter's base, is not on this machine.
    """
    folder = find_folder(path)
    if lora is not None:
        return folder, find_folder(lora)
    if not (folder / CONFIG).is_file() or (folder / "config.json").is_file():
        return folder, None
    base = str(read_json(folder / CONFIG).get("base_model_name_or_path") or "")
    if not base:
        raise MapflowError(
            f"{folder / CONFIG} names no base checkpoint; load the base, with lora={folder}"
        )
    try:
        return find_folder(folder / base if (folder / base).is_dir() else base), folder
    except MapflowError as error:
        raise MapflowError(f"{folder} is a LoRA adapter; its base is not here: {error}") from error


def checkpoint_name(folder: Path, adapter: Path | None) -> str:
    """The checkpoint's name in records: of its folder, followed by that of the adapter."""
    return "+".join(part.resolve().name for part in (folder, adapter) if part)


def checkpoint_identity(folder: Path, adapter: Path | None) -> dict[str, Any]:
    """The attributes `name`, `digest` (of all weight files) and `pathways` of a VideoLLM."""
    extra = [adapter / CONFIG, adapter / TENSORS] if adapter else []
    return {
        "name": checkpoint_name(folder, adapter),
        "digest": sha256([*weight_files(folder), *extra], advance),
        "pathways": checkpoint_pathways(adapter or folder),
    }


def _n_layers(config: Mapping[str, Any]) -> int | None:
    inner = [config[name] for name in LANGUAGE_MODELS if isinstance(config.get(name), dict)]
    number = (inner[0] if inner else config).get("num_hidden_layers")
    return number if isinstance(number, int) and number > 0 else None

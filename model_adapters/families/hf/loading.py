"""Loads model and processor from a checkpoint folder in transformers' format.

Safetensors only; no code from the checkpoint is run and nothing is downloaded. transformers itself
reads the weights. All files that it needs are checked first, so that error messages name a missing
one. LoRA adapters are merged in place.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from mapflow.model_adapters.checkpoints.folder import (
    architecture_of,
    check_sizes,
    some,
    weight_files,
)
from mapflow.model_adapters.checkpoints.lora import LoraWeights
from mapflow.model_adapters.checkpoints.network_loading import (
    DERIVED,
    SafetensorsWeights,
    check_numbers,
)
from mapflow.model_adapters.families.registry import family_for
from mapflow.model_adapters.interventions.inspection.hollow import check_hollow
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.files import read_json

LOCAL = {"local_files_only": True, "trust_remote_code": False}
PROCESSORS = ("processor_config.json", "video_preprocessor_config.json", "preprocessor_config.json")

# Prefixes of language model and vision tower in peft adapters of older transformers versions.
LORA_ROOTS = ("", "model.")
LORA_RENAMES = (
    ("language_model.model.", "model.language_model."),
    ("model.language_model.model.", "model.language_model."),
    ("model.layers.", "model.language_model.layers."),
    ("text_model.", "model.text_model."),
    ("visual.", "model.visual."),
    ("vision_tower.", "model.vision_tower."),
)


def is_native(architecture: str) -> bool:
    """Whether transformers has an image-text-to-text model of this architecture."""
    return architecture in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.values()


def native_config(folder: Path) -> Any:
    """The config of a folder that holds a model of transformers itself.

    Raises MapflowError for other folders: it names the family that fits, or says that the
    checkpoint needs its own code.
    """
    content = read_json(folder / "config.json")
    check_sizes(content, folder / "config.json")
    try:
        config = AutoConfig.from_pretrained(folder, **LOCAL)
    except Exception as error:  # configs refuse wrong values with exceptions of many kinds
        raise _not_native(folder, content) from error
    if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        raise _not_native(folder, content)
    return config


def _not_native(folder: Path, content: Mapping[str, Any]) -> MapflowError:
    architecture = architecture_of(content)
    advice = "it is not an image-text-to-text model of transformers"
    if content.get("auto_map"):
        advice = (
            "it needs Python code from the checkpoint, which is never run;"
            " use a checkpoint in transformers' own format"
        )
    if not is_native(architecture) and (other := family_for(architecture)):
        advice = f"use --model {other}"
    return MapflowError(f"{folder} holds a {architecture!r}, which mapflow_hf cannot run: {advice}")


def load_processor(folder: Path) -> Any:
    """The folder's processor. Raises MapflowError for a missing file, or if it takes no videos."""
    absent = [name for name in ("tokenizer.json",) if not (folder / name).is_file()]
    if not any((folder / name).is_file() for name in PROCESSORS):
        absent.append(PROCESSORS[0])
    if absent:
        raise MapflowError(f"checkpoint folder {folder} has no {some(absent)}")
    try:
        processor = AutoProcessor.from_pretrained(folder, **LOCAL)
    except Exception as error:  # missing packages and broken files
        reason = " ".join(str(error).split())
        raise MapflowError(f"the processor of {folder} cannot be loaded: {reason}") from error
    if not hasattr(processor, "video_processor") or not getattr(processor, "video_token", None):
        raise MapflowError(f"{folder}: {type(processor).__name__} takes no videos")
    if not getattr(processor, "chat_template", None):
        raise MapflowError(f"checkpoint folder {folder} has no chat template (chat_template.jinja)")
    return processor


def empty_model(folder: Path, config: Any) -> PreTrainedModel:
    """The model without weights. Raises MapflowError if config.json does not describe one."""
    try:
        with torch.device("meta"):
            return AutoModelForImageTextToText.from_config(config)
    except Exception as error:  # missing packages, sizes that do not fit each other
        reason = " ".join(str(error).split())
        raise MapflowError(
            f"{folder / 'config.json'} does not describe a model that can be built: {reason}"
        ) from error


def load_model(
    folder: Path,
    dtype: torch.dtype,
    device_map: str | Mapping[str, Any],
    adapter: Path | None,
    empty: PreTrainedModel,
) -> PreTrainedModel:
    """The model in evaluation mode. Raises MapflowError if tensors are missing or do not fit.

    `empty` is the model without weights. A model that interventions cannot cut is refused before
    its weights are read (`check_hollow`).
    """
    check_hollow(
        lambda: AutoModelForImageTextToText.from_config(
            AutoConfig.from_pretrained(folder, **LOCAL), dtype=torch.float32
        )
    )
    leaves: dict[bool, set[str]] = {True: set(), False: set()}
    for name, slot in empty.state_dict().items():
        leaves[slot.is_floating_point()].add(f".{name.rpartition('.')[2]}")
    counters = sorted(leaves[False] - leaves[True])
    SafetensorsWeights(weight_files(folder), any_format=(*DERIVED, *counters))
    try:
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            folder,
            dtype=dtype,
            device_map=device_map,
            use_safetensors=True,
            output_loading_info=True,
            **LOCAL,
        )
        model, found = loaded
    except Exception as error:  # shapes, broken files, unknown devices
        reason = " ".join(str(error).split())
        raise MapflowError(f"the weights of {folder} cannot be loaded: {reason}") from error
    if found["missing_keys"]:
        missing = sorted(found["missing_keys"])
        raise MapflowError(f"{folder} lacks {len(missing)} of the model's tensors: {some(missing)}")
    unused = sorted(name for name in found["unexpected_keys"] if not name.endswith(DERIVED))
    if unused:
        warnings.warn(
            f"{folder}: the model uses none of {some(unused)} ({len(unused)} tensors)", stacklevel=2
        )
    if adapter is not None:
        merge(model, adapter)
    check_numbers(model)
    return model.eval().requires_grad_(False)


def merge(model: PreTrainedModel, adapter: Path) -> None:
    """Adds a LoRA update to the model's tensors. Raises MapflowError if it does not fit."""
    slots = model.state_dict()
    weights = LoraWeights(_Loaded(slots), adapter, LORA_RENAMES, LORA_ROOTS)
    for name in weights.changed:
        slots[name].copy_(weights.read(name))


class _Loaded:
    """A loaded model's tensors as `Weights`, the base of `LoraWeights`."""

    def __init__(self, slots: Mapping[str, Tensor]) -> None:
        self._slots = slots
        self.shapes: Mapping[str, tuple[int, ...]] = {
            name: tuple(slot.shape) for name, slot in slots.items()
        }

    def read(self, name: str) -> Tensor:
        return self._slots[name].cpu()

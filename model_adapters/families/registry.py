"""The families by name, without importing any of them: this file is read whenever lmms-eval starts."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from mapflow.results.contract.errors import MapflowError

if TYPE_CHECKING:
    from mapflow.model_adapters.video_llm import VideoLLM

FAMILIES: Mapping[str, str] = MappingProxyType(
    {
        "mapflow_llava": "mapflow.model_adapters.families.llava.model.LlavaVideo",
        "mapflow_internvl": "mapflow.model_adapters.families.internvl.model.InternVLVideo",
        "mapflow_videollama3": "mapflow.model_adapters.families.videollama3.model.VideoLlama3",
        "mapflow_hf": "mapflow.model_adapters.families.hf.model.HfVideo",
    }
)
"""Model name, as users type it → class."""

BUNDLED_MODEL = "mapflow_llava"
BUNDLED = Path(__file__).parents[1] / "mini" / "pathways"
"""The checkpoint that `BUNDLED_MODEL` runs without `pretrained=`: small, pathway-regularised, ready in seconds."""


def family(model: str) -> type[VideoLLM]:
    """The class behind a model name of `FAMILIES`."""
    module, _, name = FAMILIES[model].rpartition(".")
    return getattr(importlib.import_module(module), name)


def checkpoint(model: str, pretrained: str | Path | None) -> Path:
    """The folder to load: the user's, or the bundled one. Raises MapflowError for a model that has none."""
    if pretrained is None and model != BUNDLED_MODEL:
        raise MapflowError(f"{model} has no bundled checkpoint; give pretrained, its folder")
    return Path(pretrained or BUNDLED)

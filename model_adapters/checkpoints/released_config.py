"""Released config.json files in the terms of today's transformers: what is taken from them and what is not.

They were written by transformers 4.4x, some whole and some without the values that were defaults then. Precision, class
and attention function are decided when a network is loaded, so a file has no say in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import AutoConfig

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


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is decided at load time."""
    return {key: value for key, value in config.items() if key not in DECIDED}


def text_config(config: Mapping[str, Any], model_type: str) -> Any:
    """A decoder's config; `model_type` where the file names none."""
    return AutoConfig.for_model(config.get("model_type", model_type), **settings(config))

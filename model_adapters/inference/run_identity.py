"""What must agree for two runs' records to belong together: model, weights, wording, precision, code."""

from __future__ import annotations

import importlib.metadata
from typing import Any

from mapflow.model_adapters.video_llm import VideoLLM
from mapflow.results.runs.provenance import code_version

VERSIONED = ("mapflow", "torch", "transformers", "accelerate", "av")


def run_identity(model: str, video_llm: VideoLLM, protocol: str) -> dict[str, Any]:
    """`model` is the family's name as users type it."""
    parameter = next(video_llm.model.parameters())
    return {
        "model": model,
        "checkpoint": video_llm.name,
        "digest": video_llm.digest,
        "protocol": protocol,
        "dtype": str(parameter.dtype).removeprefix("torch."),
        "code": code_version(),
        "versions": {name: package_version(name) for name in VERSIONED},
    }


def package_version(package: str) -> str:
    """The installed version, or "absent"."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"

"""What lmms-eval finds through the entry point `lmms_eval.models`: our model names and where their classes are."""

from __future__ import annotations

from lmms_eval.models.registry_v2 import ModelManifest

from mapflow.model_adapters.families.registry import FAMILIES


def manifests() -> list[ModelManifest]:
    """One manifest a family; nothing heavy is imported until a model is asked for."""
    return [
        ModelManifest(
            model_id=name,
            simple_class_path=f"mapflow.model_adapters.lmms.models.{class_name(name)}",
        )
        for name in FAMILIES
    ]


def class_name(model: str) -> str:
    """mapflow_llava → MapflowLlava."""
    return "".join(word.capitalize() for word in model.split("_"))

"""Entry point `lmms_eval.models`: our models' names and the paths of their classes."""

from __future__ import annotations

from lmms_eval.models.registry_v2 import ModelManifest

from mapflow.model_adapters.families.registry import families


def manifests() -> list[ModelManifest]:
    """One manifest per family. Imports no model code: lmms-eval asks whenever it starts."""
    # lmms-eval splits the path at its last dot, so only identifiers can be class names.
    return [
        ModelManifest(name, simple_class_path=f"mapflow.model_adapters.lmms.models.{name}")
        for name in families()
        if name.isidentifier()
    ]

"""Model names in tables: the checkpoint's name and, where it matters, how the checkpoint was run.

Manifests hold the name with the arguments that differ from the family's defaults (`variant`).
Folders of earlier versions lack the arguments of VideoLLaMA3, whose defaults have changed since;
their names are completed here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

OLD_VIDEOLLAMA3 = {"vision_attention": "isolated", "max_tokens": "checkpoint"}
"""The defaults of mapflow_videollama3 before `model_args` was part of a manifest."""


def variant(argument: str, value: Any) -> str:
    """The part of a model's name for an argument that differs from its default."""
    return f"+{value}-{argument.replace('_', '-')}"


def model_name(manifest: Mapping[str, Any], otherwise: str) -> str:
    """The checkpoint's name, else the adapter's, else `otherwise`."""
    identity = manifest.get("identity") or {}
    name = str(identity.get("checkpoint") or identity.get("model") or otherwise)
    if identity.get("model") != "mapflow_videollama3" or "model_args" in identity:
        return name
    if manifest.get("logged_by"):  # lmms-eval's logs hold the arguments as they were typed
        return name + _typed_variant(str(manifest.get("model_args") or ""))
    old, released = OLD_VIDEOLLAMA3, "+released-vision-attention"
    attention = (
        "" if name.endswith(released) else variant("vision_attention", old["vision_attention"])
    )
    return name.removesuffix(released) + attention + variant("max_tokens", old["max_tokens"])


def _typed_variant(arguments: str) -> str:
    pairs = (part.partition("=") for part in arguments.split(","))
    value = {name: value for name, _, value in pairs}.get("vision_attention", "unrecorded")
    return "" if value == "released" else variant("vision_attention", value)


def distinct_names(manifests: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """Names with precision and weights added where models of one name differ in them."""
    found = list(names)
    for label in (_dtype, _weights):
        known = {(name, label(manifest)) for name, manifest in zip(found, manifests, strict=True)}
        shared = Counter(name for name, _ in known)
        found = [
            f"{name} ({text})" if shared[name] > 1 and (text := label(manifest)) else name
            for name, manifest in zip(found, manifests, strict=True)
        ]
    return found


def _dtype(manifest: Mapping[str, Any]) -> str:
    return str((manifest.get("identity") or {}).get("dtype") or "")


def _weights(manifest: Mapping[str, Any]) -> str:
    digest = (manifest.get("identity") or {}).get("digest")
    return f"weights {str(digest)[:8]}" if digest else ""

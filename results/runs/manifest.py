"""manifest.json: what was run, and the identity by which records belong to it.

Each line of records carries a digest of the manifest's `identity`, so the answers of one run are
never taken for those of another. Lines of earlier versions carry none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from mapflow.results.contract.files import is_there, read_checked

MANIFEST = "manifest.json"


class Identity(TypedDict, total=False):
    """What must be equal for two commands to share a folder; analyses add their settings."""

    model: str | None
    checkpoint: str | None
    digest: str | None
    protocol: str | None
    dtype: str | None
    code: str
    versions: dict[str, str | None] | None
    model_args: dict[str, Any] | None
    generation: dict[str, Any]
    samples: str


class Manifest(TypedDict, total=False):
    """A folder's manifest.

    `interventions` maps names to full expressions, `layers` counts the model's layers, and `checks`
    holds what the first question showed.
    """

    identity: Identity | None
    interventions: dict[str, str] | None
    device: str
    git: str | dict[str, Any] | None
    command: list[str]
    layers: int
    frames_per_segment: int | None
    uncut_layers: str | None
    checks: dict[str, Any]


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest with all its entries; empty for a folder without one.

    Raises MapflowError, naming file and entry, for one that is broken or of wrong types.
    """
    path = folder / MANIFEST
    return read_checked(path, Manifest) if is_there(path) else {}


def run_digest(identity: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits of SHA-256, which the records of a run carry."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]

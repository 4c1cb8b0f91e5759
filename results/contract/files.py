"""Reading files the same way on every floor: JSON objects and checksums."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mapflow.results.contract.errors import MapflowError

LARGEST_JSON = 256 << 20
"""Bytes. A larger file is refused before it fills the memory."""


def read_json(path: Path) -> dict[str, Any]:
    """The contents of a JSON file that holds an object.

    Raises MapflowError, naming the file, if it is absent, unreadable, too large or holds something else.
    """
    if not path.is_file():
        raise MapflowError(f"folder {path.parent} has no {path.name}")
    if path.stat().st_size > LARGEST_JSON:
        raise MapflowError(f"{path} has more than {LARGEST_JSON:,} bytes: it is not read")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise MapflowError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise MapflowError(f"{path} must hold a JSON object, not a {type(content).__name__}")
    return content


def sha256(paths: Iterable[Path]) -> str:
    """SHA-256 in hexadecimal over the files' contents in order: what `cat PATHS | sha256sum` prints."""
    running = hashlib.sha256()
    for path in paths:
        with path.open("rb") as stream:
            while block := stream.read(1 << 22):
                running.update(block)
    return running.hexdigest()

"""File names from text of any kind, and folders to write into."""

from __future__ import annotations

import re
from pathlib import Path

from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.visible_text import quoted


def file_part(text: str) -> str:
    """The text as a part of a path: letters, digits and ._+- only, at most 80 characters."""
    part = re.sub(r"[^A-Za-z0-9._+-]+", "_", text).strip("._")[:80]
    return part or "unnamed"


def make_folder(path: Path) -> None:
    """Raises MapflowError where the folder cannot be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MapflowError(f"{quoted(str(path), 300)} cannot be made a folder: {reason}") from error

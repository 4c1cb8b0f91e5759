"""Which code made a record: a digest of the package's own source, so that a run is not finished by other code than began it.

The version number alone does not tell a checkout from the same checkout with an edit. Files that only read records
(tables, statistics, pages, figures, command lines) may change in the middle of a run and are left out.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

FOLDERS = ("harness", "model_adapters", "results", "tasks")
READERS = {
    "commands",
    "figures",
    "report",
    "reporting",
    "statistics",
    "verification",
    "tables",
    "cli",
}


@cache
def code_version(root: Path | None = None) -> str:
    """Twelve hex digits. `root` holds the four folders; left out, the code that is running."""
    root, running = root or Path(__file__).parents[2], hashlib.sha256()
    for name in FOLDERS:
        folder = root / name
        for file in sorted(folder.rglob("*.py")):
            inside = file.relative_to(folder)
            if not READERS.intersection(inside.parts):
                running.update(f"{name}/{inside.as_posix()}\0".encode())
                running.update(hashlib.sha256(file.read_bytes()).digest())
    return running.hexdigest()[:12]

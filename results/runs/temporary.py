"""Temporary run folders, and the removal of those that killed processes left behind.

A process claims its folder while it works in it. The next command removes folders that no process
claims.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mapflow.results.contract.errors import MapflowError
from mapflow.results.runs.claim import TURN, Claim, claim

PREFIX = "mapflow-"
YOUNG = 60.0
"""Seconds for which a folder without a claim is left alone: its process is about to claim it."""


def shared_temporary(job: str | None = None) -> tuple[Path, Claim]:
    """Makes a folder; returns it and this process's claim, which lasts while the object is kept.

    `job` names a folder that several processes share. Folders that killed processes left behind are
    removed. Raises OSError if no folder can be made.
    """
    remove_abandoned(job)
    if job is None:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    else:
        folder = Path(tempfile.gettempdir()) / (PREFIX + job)
        folder.mkdir(mode=0o700, exist_ok=True)
    return folder, claim(folder)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder for the time of the context."""
    folder, held = shared_temporary()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        del held


def remove_abandoned(job: str | None = None) -> None:
    """Removes this user's temporary run folders that no process claims, except that of `job`."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError, ValueError, MapflowError):  # in use, or removed by another process
            about = folder.lstat()
            own = about.st_uid == os.getuid() and stat.S_ISDIR(about.st_mode)
            old = time.time() - about.st_mtime > YOUNG and folder.name != PREFIX + str(job)
            if own and old and (folder / TURN).exists():
                held = Claim(folder)  # not `claim`, which is this process's own where it has one
                shutil.rmtree(folder)
                del held

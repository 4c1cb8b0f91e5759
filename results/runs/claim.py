"""Locks that keep a second job out of a run folder.

Every process of a job holds two kernel locks while it works in the folder: a shared lock for the
job and an exclusive lock for its own rank. The kernel releases both when the process ends, so
a lock never outlives it, and a killed job can be resumed at once. Processes belong to one job if
torchrun, accelerate or srun gave them the same job identity (`processes.py`).

The locks are made with flock. Over NFS, Linux forwards them to the server, so they work across
machines, except on a share mounted with `nolock` or `local_lock=flock`.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shlex
import socket
import sys
import uuid
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from mapflow.results.contract.errors import MapflowError
from mapflow.results.runs.processes import processes

TURN, JOB = ".lock", ".job"

_held: weakref.WeakValueDictionary[tuple[int, str], Claim] = weakref.WeakValueDictionary()


class Claim:
    """The right of this process to write into `folder`, held until the object is released.

    Made by `claim`.
    """

    def __init__(self, folder: Path) -> None:
        with in_turn(folder):
            self._take(folder, JOB, job_identity(), shared=True)
            self._take(folder, f".worker-{processes().rank}", "", shared=False)

    def _take(self, folder: Path, name: str, job: str, *, shared: bool) -> None:
        file = _open_lock(folder / name)
        weakref.finalize(self, os.close, file)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # POSIX allows either for a lock that is held
            owner = _owner(file)
            if not shared or owner.pop("job", None) != job:
                raise MapflowError(_in_use(folder, owner)) from None
        else:
            os.ftruncate(file, 0)
            os.pwrite(file, json.dumps({"job": job, **_ourselves()}).encode(), 0)
        if shared:  # the turn lock keeps other processes from locking in between
            fcntl.flock(file, fcntl.LOCK_SH)


def claim(folder: Path) -> Claim:
    """Claims the folder for this job; a second call in this process returns the same claim.

    Raises MapflowError, naming the process, if another job works in the folder, and OSError if
    the file system does not support locks.
    """
    key = os.getpid(), str(folder.resolve())
    found = _held.get(key)
    if found is None:
        found = _held[key] = Claim(folder)
    return found


def holds_claim(folder: Path, rank: int) -> bool:
    """Whether the process of this number works in the folder: it runs and has claimed it."""
    with in_turn(folder):  # nobody claims meanwhile
        file = _open_lock(folder / f".worker-{rank}")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(file)
    return False


@contextmanager
def in_turn(folder: Path) -> Iterator[None]:
    """Runs a short section in one process at a time; other processes wait."""
    lock = _open_lock(folder / TURN)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _open_lock(path: Path) -> int:
    """A file descriptor. Raises MapflowError for a symbolic link, whose target would be emptied."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise MapflowError(f"{str(path)!r} is a symbolic link: remove it") from None
        raise


def job_identity() -> str:
    """An identity shared by all processes of one torchrun, accelerate or srun job, and by no other
    job."""
    return processes().job or uuid.uuid4().hex


def _ourselves() -> dict[str, str | int]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join(sys.argv),
    }


def _owner(file: int) -> dict[str, str | int]:
    """What the process that holds the lock wrote about itself; empty if that cannot be read."""
    try:
        found = json.loads(os.pread(file, 1 << 16, 0))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) and found.keys() >= _ourselves().keys() else {}


def _in_use(folder: Path, owner: dict[str, str | int]) -> str:
    who = (
        "process {pid} on {host}, since {since} ({command})".format_map(owner)
        if owner
        else "another job"
    )
    return (
        f"run folder {str(folder)!r} is in use by {who}; wait until it ends,"
        " or choose another --output_path"
    )

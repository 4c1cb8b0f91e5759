"""Run folders: records, written as they come, and a manifest that describes them.

Each record is appended with one write under a file lock, so several processes share one file. A
killed process loses at most its unfinished question; a power cut also loses the records since the
last fsync, at most `SYNC_SECONDS` of work. A run is resumed if the manifest's `identity` (model,
weights, protocol, code …) agrees; the same command then asks only the missing questions. `claim.py`
keeps other jobs out of the folder.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.files import read_json
from mapflow.results.records.base import JsonlRecord
from mapflow.results.records.record import Record
from mapflow.results.runs.asked import ASKED, joined, read_asked, was_asked
from mapflow.results.runs.claim import claim, in_turn, job_identity

RECORDS, MANIFEST, SUMMARY = Record.FILE, "manifest.json", "summary.json"
SYNC_SECONDS = 5.0  # seconds of answers that a power cut may lose; a sync costs milliseconds
_BLOCK = 1 << 16

R = TypeVar("R", bound=JsonlRecord)


class RunFolder(Generic[R]):
    """A folder that records are appended to; `answered` holds the keys that need no new answer.

    Records are not kept in memory. Questions that failed in an earlier run are asked again, because
    the video or the memory may be available now.
    """

    def __init__(
        self,
        folder: Path,
        identity: Mapping[str, Any],
        about: Mapping[str, Any],
        kind: type[R] = Record,  # pyright: ignore[reportArgumentType]
    ) -> None:
        """Creates the folder, or resumes the run in it. `kind` is the type of its records.

        `identity` must equal the earlier run's, and an intervention's name must have the same
        meaning (`about["interventions"]`: name → full expression). The rest of `about` (command,
        device, …) may differ; its mappings are merged with those of the earlier run. Raises
        MapflowError, with both values, if they differ, if another job works in the folder, or if
        the folder cannot be written.
        """
        self.folder, self.file = folder, folder / kind.FILE
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._claim = claim(folder)
            with in_turn(folder):
                earlier = self._earlier(identity, about.get("interventions", {}))
                grown = {
                    name: {**earlier.get(name, {}), **value} if isinstance(value, dict) else value
                    for name, value in about.items()
                }
                # what the first questions showed (`describe`) stays where none is asked again
                write_json(folder / MANIFEST, {**earlier, "identity": identity, **grown})
                _drop_torn_line(self.file)
            self._file = self._open()
        self._job = job_identity()
        self._synced = time.monotonic()
        self.answered = {
            record.key for record in read_records(folder, kind) if record.error is None
        }

    def note_asked(self, questions: Iterable[tuple[str, str]], sizes: Mapping[str, int]) -> None:
        """Writes down which (task, question id) this command asks for; see `asked.py`.

        sizes: the number of questions that each task has.
        """
        with _writing(self.folder), in_turn(self.folder):
            write_json(self.folder / ASKED, joined(self.folder, self._job, questions, sizes))

    def describe(self, values: Mapping[str, Any]) -> None:
        """Adds entries to the manifest, or replaces them. Raises MapflowError as `__init__`."""
        with _writing(self.folder), in_turn(self.folder):
            manifest = read_json(self.folder / MANIFEST)
            write_json(self.folder / MANIFEST, {**manifest, **values})

    def append(self, records: Iterable[R]) -> None:
        """All of them in one write: other workers' lines never interleave. Raises MapflowError on
        a full disk."""
        records = list(records)
        data = "".join(record.to_line() + "\n" for record in records).encode()
        with _writing(self.folder):
            fcntl.flock(self._file, fcntl.LOCK_EX)
            while not os.path.samestat(os.fstat(self._file), self.file.stat()):
                self._file = self._open()  # `sort_records` has replaced the file
                fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                written = os.write(self._file, data)
                if written != len(data):
                    os.ftruncate(self._file, os.fstat(self._file).st_size - written)
                    raise MapflowError(
                        f"run folder {str(self.folder)!r}: no space left for records"
                    )
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)
            if time.monotonic() - self._synced >= SYNC_SECONDS:
                os.fsync(self._file)
                self._synced = time.monotonic()
        self.answered.update(record.key for record in records)

    def _open(self) -> int:
        file = os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        weakref.finalize(self, os.close, file)
        return file

    def _earlier(
        self, identity: Mapping[str, Any], interventions: Mapping[str, str]
    ) -> dict[str, Any]:
        """The manifest of an earlier run with the same identity; empty if there is none."""
        path = self.folder / MANIFEST
        if not path.exists():
            return {}
        manifest = read_json(path)
        self._check_same(manifest.get("identity", {}), json.loads(json.dumps(identity)))
        named = manifest.get("interventions", {})
        known = named.keys() & interventions.keys()
        self._check_same({n: named[n] for n in known}, {n: interventions[n] for n in known})
        return manifest

    def _check_same(self, earlier: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
        for name in sorted({*earlier, *ours}):
            if earlier.get(name) != ours.get(name):
                raise MapflowError(
                    f"run folder {str(self.folder)!r} holds another run: its {name} is"
                    f" {earlier.get(name)!r}, this one's"
                    f" {ours.get(name)!r}; choose another --output_path"
                )


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MapflowError(
            f"run folder {str(folder)!r} cannot be written: {error.strerror}"
        ) from error


def _drop_torn_line(path: Path) -> None:
    """Removes half a line at the end, which a worker leaves that is killed while writing."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # no other worker is in the middle of a line
        end = size = file.seek(0, os.SEEK_END)
        while end:
            begin = max(0, end - _BLOCK)
            file.seek(begin)
            newline = file.read(end - begin).rfind(b"\n")
            if newline >= 0:
                end = begin + newline + 1
                break
            end = begin
        if end != size:
            file.truncate(end)


def read_records(folder: Path, kind: type[R] = Record) -> list[R]:  # pyright: ignore[reportArgumentType]
    """All records of a run, sorted by question and intervention.

    Of several records with one key, the answer is kept, or else the last error. Raises MapflowError
    on a broken line.
    """
    path = folder / kind.FILE
    if not path.is_file():
        raise MapflowError(f"{str(folder)!r} holds no {kind.FILE}: not the folder of {kind.RUN}")
    by_key: dict[tuple[str, str], R] = {}
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.endswith(b"\n"):  # another worker may be in the middle of a line
                record = kind.from_line(line.decode(errors="replace"), f"{path}:{number}")
                earlier = by_key.get(record.key)
                if earlier is None or earlier.error is not None:
                    by_key[record.key] = record
    return [by_key[key] for key in sorted(by_key)]


def reported_records(folder: Path, kind: type[R] = Record) -> list[R]:  # pyright: ignore[reportArgumentType]
    """`read_records`, of the questions that the last command asked (`asked.py`)."""
    asked = read_asked(folder)
    return [record for record in read_records(folder, kind) if was_asked(record, asked)]


def sort_records(folder: Path, kind: type[R] = Record) -> list[R]:  # pyright: ignore[reportArgumentType]
    """Rewrites the file in sorted order and returns the records.

    Sorted files are equal for any number of workers.
    """
    if not (folder / kind.FILE).is_file():
        return read_records(folder, kind)  # says what is missing
    with _writing(folder), (folder / kind.FILE).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # appending processes wait, then find the new file
        records = read_records(folder, kind)
        _replace(folder / kind.FILE, "".join(record.to_line() + "\n" for record in records))
    return records


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Writes the whole file or nothing. Raises MapflowError if it cannot be written."""
    _replace(path, json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _replace(path: Path, text: str) -> None:
    """Writes the whole file or nothing.

    Writers take turns, so all use one temporary name; a killed writer's file is removed. A link of
    that name is removed, too, and not followed.
    """
    unfinished = path.with_name(f".{path.name}.unfinished")
    with _writing(path.parent):
        try:
            unfinished.unlink(missing_ok=True)
            with unfinished.open("x", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # writes the new name to the disk
        finally:
            os.close(folder)

"""A run's folder: records as they come, and a manifest that says what they are records of.

Lines are appended with one write under a file lock, so several workers share one file and a killed one loses at most
its unfinished question. The manifest's `identity` (model, weights, protocol, code …) must agree when a run is taken
up again; the same command then answers only what is missing.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from mapflow.results.errors import MapflowError
from mapflow.results.lines import Line
from mapflow.results.record import Record

RECORDS, MANIFEST, SUMMARY = Record.FILE, "manifest.json", "summary.json"

R = TypeVar("R", bound=Line)


class RunFolder(Generic[R]):
    """`folder` with what has been answered so far (`answered`, by question id and intervention)."""

    def __init__(
        self,
        folder: Path,
        identity: Mapping[str, Any],
        about: Mapping[str, Any],
        kind: type[R] = Record,  # pyright: ignore[reportArgumentType]
    ) -> None:
        """Creates the folder or takes up an earlier run in it. `kind` is the kind of record that it holds.

        `identity` must be equal to the earlier run's; `about` (command, device, …) may differ, and its mappings
        (interventions by name) keep what the earlier run put there. Raises MapflowError,
        with both values, where the identities differ, and where the folder cannot be written.
        """
        self.folder, self.file = folder, folder / kind.FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / ".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                earlier = self._earlier(identity)
                grown = {
                    name: {**earlier.get(name, {}), **value} if isinstance(value, dict) else value
                    for name, value in about.items()
                }
                write_json(folder / MANIFEST, {"identity": identity, **grown})
                self._drop_torn_line()
            self._file = os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise MapflowError(f"run folder {str(folder)!r} cannot be written: {error.strerror}") from error
        self.answered = {record.key: record for record in read_records(folder, kind)}

    def append(self, records: Iterable[R]) -> None:
        """All of them in one write: other workers' lines never interleave. Raises MapflowError on a full disk."""
        records = list(records)
        data = "".join(record.to_line() + "\n" for record in records).encode()
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                written = os.write(self._file, data)
                if written != len(data):
                    os.ftruncate(self._file, os.fstat(self._file).st_size - written)
                    raise MapflowError(f"run folder {str(self.folder)!r}: no space left for records")
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)
        except OSError as error:
            raise MapflowError(
                f"run folder {str(self.folder)!r} cannot be written: {error.strerror}"
            ) from error
        self.answered.update((record.key, record) for record in records)

    def _earlier(self, identity: Mapping[str, Any]) -> dict[str, Any]:
        """The manifest of an earlier run of the same identity, empty where there is none."""
        path = self.folder / MANIFEST
        if not path.exists():
            return {}
        manifest = read_json(path)
        earlier, ours = manifest.get("identity", {}), json.loads(json.dumps(identity))
        for name in sorted({*earlier, *ours}):
            if earlier.get(name) != ours.get(name):
                raise MapflowError(
                    f"run folder {str(self.folder)!r} holds another run: its {name} is {earlier.get(name)!r}, this one's"
                    f" {ours.get(name)!r}; choose another --output_path"
                )
        return manifest

    def _drop_torn_line(self) -> None:
        """A worker that was killed while writing leaves half a line at the end."""
        if not self.file.exists():
            return
        with self.file.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # no other worker is in the middle of a line
            data = file.read()
            if data and not data.endswith(b"\n"):
                file.truncate(data.rfind(b"\n") + 1)


def read_records(folder: Path, kind: type[R] = Record) -> list[R]:  # pyright: ignore[reportArgumentType]
    """All records of a run, sorted by question and intervention, each once. Raises MapflowError on a broken line."""
    path = folder / kind.FILE
    if not path.is_file():
        raise MapflowError(f"{str(folder)!r} holds no {kind.FILE}: not the folder of {kind.RUN}")
    by_key: dict[tuple[str, str], R] = {}
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.endswith("\n"):  # what another worker has not finished writing yet is not a record yet
                record = kind.from_line(line, f"{path}:{number}")
                by_key.setdefault(record.key, record)
    return [by_key[key] for key in sorted(by_key)]


def sort_records(folder: Path, kind: type[R] = Record) -> list[R]:  # pyright: ignore[reportArgumentType]
    """Rewrites the file in sorted order, so that it does not tell how many workers answered; returns the records."""
    records = read_records(folder, kind)
    _replace(folder / kind.FILE, "".join(record.to_line() + "\n" for record in records))
    return records


def read_json(path: Path) -> dict[str, Any]:
    """Raises MapflowError naming the file where it is absent or not a JSON object."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MapflowError(f"{path} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise MapflowError(f"{path} is not a JSON object")
    return values


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Whole or not at all."""
    _replace(path, json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _replace(path: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise

"""Run folders: records, written as they come, and a manifest that describes them.

Each record is appended with one write under a file lock, so several processes share one file. A
killed process loses at most its unfinished question; a power cut also loses the records since the
last fsync, at most `SYNC_SECONDS` of work. A run is resumed if the manifest's `identity` (model,
weights, protocol, code …) agrees; the same command then asks only the missing questions. `claim.py`
keeps other jobs out of the folder.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import Question
from mapflow.results.contract.visible_text import quoted
from mapflow.results.records.base import JsonlRecord
from mapflow.results.records.record import Record
from mapflow.results.runs.asked import ASKED, joined, read_asked, was_asked
from mapflow.results.runs.claim import claim, in_turn, job_identity
from mapflow.results.runs.manifest import MANIFEST, read_manifest, run_digest

RECORDS, SUMMARY = Record.FILE, "summary.json"
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
        identity = json.loads(json.dumps(identity))
        self.folder, self.file, self._run = folder, folder / kind.FILE, run_digest(identity)
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._claim = claim(folder)
            with in_turn(folder):
                earlier = self._earlier(identity, about.get("interventions", {}))
                known = each_record(folder, kind) if self.file.is_file() else ()
                self.answered: set[tuple[str, str]] = set()
                self._asked_as: dict[str, tuple[str, int, str]] = {}
                for record in known:
                    if record.error is None:
                        self.answered.add(record.key)
                        if isinstance(record, Record):
                            text = record.video_id, record.n_options, record.target
                            self._asked_as[record.question_id] = text
                grown = {
                    name: {**(earlier.get(name) or {}), **value}
                    if isinstance(value, dict)
                    else value
                    for name, value in about.items()
                }
                # what the first questions showed (`describe`) stays where none is asked again
                write_json(folder / MANIFEST, {**earlier, "identity": identity, **grown})
            self._file = self._open()
            with self._locked():
                pass  # drops the half line of a killed process
        self._job = job_identity()
        self._synced = time.monotonic()

    def note_asked(self, questions: Iterable[tuple[str, str]], sizes: Mapping[str, int]) -> None:
        """Writes down which (task, question id) this command asks for; see `asked.py`.

        sizes: the number of questions that each task has.
        """
        with _writing(self.folder), in_turn(self.folder):
            write_json(self.folder / ASKED, joined(self.folder, self._job, questions, sizes))

    def check_unchanged(self, question: Question) -> None:
        """Raises MapflowError if the question is answered here and its files have changed since: it
        shows another video, or has another right answer or number of options."""
        now = question.video_id, len(question.options), question.target_text
        then = self._asked_as.get(question.question_id, now)
        for name, old, new in zip(("video", "number of options", "target"), then, now, strict=True):
            if old != new:
                raise MapflowError(
                    f"run folder {str(self.folder)!r} holds another version of the benchmark: the"
                    f" {name} of question {question.question_id!r} was {old!r} and is {new!r};"
                    " choose another --output_path"
                )

    def describe(self, values: Mapping[str, Any]) -> None:
        """Adds entries to the manifest, or replaces them. Raises MapflowError as `__init__`."""
        with _writing(self.folder), in_turn(self.folder):
            manifest = read_manifest(self.folder)
            write_json(self.folder / MANIFEST, {**manifest, **values})

    def append(self, records: Iterable[R]) -> None:
        """All of them in one write: other workers' lines never interleave. Raises MapflowError on
        a full disk."""
        records = list(records)
        data = "".join(record.to_line(self._run) + "\n" for record in records).encode()
        with _writing(self.folder):
            with self._locked() as file:
                written = os.write(file, data)
                if written != len(data):
                    os.ftruncate(file, os.fstat(file).st_size - written)
                    raise MapflowError(
                        f"run folder {str(self.folder)!r}: no space left for records"
                    )
            if time.monotonic() - self._synced >= SYNC_SECONDS:
                os.fsync(self._file)
                self._synced = time.monotonic()
        self.answered.update(record.key for record in records)

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """The file of records, locked, without the half line that a killed process may leave."""
        fcntl.flock(self._file, fcntl.LOCK_EX)
        while not os.path.samestat(os.fstat(self._file), self.file.stat()):
            self._file = self._open()  # `sort_records` has replaced the file
            fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            _drop_torn_line(self._file)
            yield self._file
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _open(self) -> int:
        file = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        weakref.finalize(self, os.close, file)
        return file

    def _earlier(
        self, identity: Mapping[str, Any], interventions: Mapping[str, str]
    ) -> dict[str, Any]:
        """The manifest of an earlier run with the same identity; empty if there is none."""
        manifest = check_resumable(self.folder, identity, interventions, self.file.name)
        if manifest:
            _check_same(self.folder, manifest.get("identity") or {}, identity)
        return manifest


def check_resumable(
    folder: Path,
    known: Mapping[str, Any],
    interventions: Mapping[str, str],
    file: str = RECORDS,
) -> dict[str, Any]:
    """The manifest of an earlier run in the folder; empty if there is none.

    Raises MapflowError if that run differs in the part `known` of its identity or in the meaning of
    an intervention, and if records (`file`) have no manifest. Nothing is written or locked.
    """
    manifest = read_manifest(folder)
    if not manifest:
        if (folder / file).is_file() and b"\n" in (folder / file).read_bytes():
            raise MapflowError(
                f"run folder {str(folder)!r} holds {file} but no {MANIFEST},"
                " which tells whose answers they are: bring it back, or choose another"
                " --output_path"
            )
        return {}
    earlier = manifest.get("identity") or {}
    _check_same(folder, {name: earlier.get(name) for name in known}, known)
    named = manifest.get("interventions") or {}
    both = named.keys() & interventions.keys()
    _check_same(folder, {n: named[n] for n in both}, {n: interventions[n] for n in both})
    return manifest


def _check_same(folder: Path, earlier: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    for name in dict.fromkeys([*ours, *earlier]):
        if earlier.get(name) != ours.get(name):
            raise MapflowError(
                f"run folder {str(folder)!r} holds another run: its {name} is"
                f" {quoted(earlier.get(name), 300)}, this one's"
                f" {quoted(ours.get(name), 300)}; choose another --output_path"
            )


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MapflowError(
            f"run folder {str(folder)!r} cannot be written: {error.strerror}"
        ) from error


def _drop_torn_line(file: int) -> None:
    """Removes half a line at the end. The file is locked: nobody is in the middle of a line."""
    end = size = os.fstat(file).st_size
    if size and os.pread(file, 1, size - 1) == b"\n":
        return
    while end:
        begin = max(0, end - _BLOCK)
        newline = os.pread(file, end - begin, begin).rfind(b"\n")
        if newline >= 0:
            end = begin + newline + 1
            break
        end = begin
    if end != size:
        os.ftruncate(file, end)


def each_record(folder: Path, kind: type[R] = Record) -> Iterator[R]:  # pyright: ignore[reportArgumentType]
    """The records of a folder in the order of the file, each checked; every command reads so.

    An equal answer, an error after the answer and a last line without an end (which another process
    is writing) are passed over. An answer may follow errors of its question: the later one counts.

    Raises MapflowError, naming file and line, for a line that is not a record, for a record of
    another run, intervention or task than those of the folder, for one of more or fewer layers
    than the others of its intervention or route, and for a second, other answer.
    """
    path = folder / kind.FILE
    if not path.is_file():
        raise MapflowError(f"{str(folder)!r} holds no {kind.FILE}: not the folder of {kind.RUN}")
    try:
        with path.open("rb") as lines, path.open("rb") as earlier:
            for record, _ in _each_with_run(folder, kind, lines, earlier):
                yield record
    except OSError as error:
        raise MapflowError(f"{path} cannot be read: {error.strerror}") from error


def _each_with_run(
    folder: Path, kind: type[R], lines: BinaryIO, earlier: BinaryIO
) -> Iterator[tuple[R, str | None]]:
    """`each_record` with the run of each. lines, earlier: the file of records, opened twice."""
    check, name = _membership(folder, kind), str(folder / kind.FILE)
    answers: dict[int, int] = {}  # hash of the key → start of the line: less memory than keys
    start = 0
    for number, line in enumerate(lines, 1):
        if not line.endswith(b"\n"):
            return
        where = f"{name}:{number}"
        record, run = kind.with_run(line, where)
        check(record, run, where)
        first = answers.get(hash(record.key))
        if first is None:
            if record.error is None:
                answers[hash(record.key)] = start
            yield record, run
        elif record.error is None:
            earlier.seek(first)
            if kind.from_line(earlier.readline(), where) != record:
                raise MapflowError(
                    f"{where}: question {record.key[0]!r} is answered twice, and"
                    f" differently, under {record.key[1]!r}; remove one of the lines"
                )
        start += len(line)


def _membership(folder: Path, kind: type[R]) -> Callable[[R, str | None, str], None]:
    """A check that a record belongs to the folder: (record, its run, file and line)."""
    manifest, asked = read_manifest(folder), read_asked(folder)
    described = run_digest(manifest.get("identity") or {}) if manifest else None
    named = manifest.get("interventions") if kind.NAMED_BY == "intervention" else None
    first: list[str | None] = []
    depths: dict[str, int] = {}

    def check(record: R, run: str | None, where: str) -> None:
        first[:] = first or [run]
        if described is not None and run not in (None, described):
            raise MapflowError(
                f"{where}: a record of run {run!r}, but {MANIFEST} describes run {described!r}"
                f" ({', '.join(map(str, _names(manifest)))}): bring back the folder's own files"
            )
        if run != first[0]:
            raise MapflowError(
                f"{where}: a record of run {run!r} among those of run {first[0]!r}: remove the line"
            )
        if named and record.key[1] not in named:
            raise MapflowError(
                f"{where}: a record of intervention {record.key[1]!r}, which {MANIFEST} does not"
                f" name ({', '.join(named)}): remove the line"
            )
        if asked and record.task not in asked:
            raise MapflowError(
                f"{where}: a record of task {record.task!r}, which was never asked here"
                f" ({', '.join(asked)}): remove the line"
            )
        own = record.depth
        if own is not None and own != (usual := depths.setdefault(record.key[1], own)):
            raise MapflowError(
                f"{where}: a record of {own} layers among those of {usual} of"
                f" {record.key[1]!r}: remove the line"
            )

    return check


def _names(manifest: Mapping[str, Any]) -> Iterator[Any]:
    identity = manifest.get("identity") or {}
    return filter(None, (identity.get("model"), identity.get("checkpoint")))


def read_records(folder: Path, kind: type[R] = Record) -> list[R]:  # pyright: ignore[reportArgumentType]
    """All records of a folder, sorted by question and intervention; errors as `each_record`."""
    by_key = {record.key: record for record in each_record(folder, kind)}
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
        # Read once and whole: a lock may end when its process closes another opening of the file.
        data = file.read()
        each = _each_with_run(folder, kind, io.BytesIO(data), io.BytesIO(data))
        by_key = {record.key: (record, run) for record, run in each}
        kept = [by_key[key] for key in sorted(by_key)]
        _replace(folder / kind.FILE, "".join(record.to_line(run) + "\n" for record, run in kept))
    return [record for record, _ in kept]


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

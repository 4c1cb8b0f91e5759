"""Reads Inspect's logs (`.eval`, a zip file, and `.json`) as records.

Of an `.eval` file only the header and the samples' summaries are unpacked, which hold everything
that is counted; transcripts stay packed. Inspect packs with Zstandard, which Python's zipfile reads
only from 3.14 on, so pyarrow unpacks it.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.files import LARGEST_JSON
from mapflow.results.contract.question import check_ids
from mapflow.results.contract.visible_text import quoted, shortened
from mapflow.results.logs.log_files import cluster_of, right_or_wrong, typed_json
from mapflow.results.records.record import Record

FILE_NAME = re.compile(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d.*_.+\.(?:eval|json)")
MARKS = {"C": True, "I": False, "N": False}
"""Correct, incorrect and no answer; P, partly right, is neither right nor wrong."""
HEADER, SUMMARIES = "header.json", "summaries.json"
ZSTANDARD, LOCAL_HEADER = 93, 30
"""The zip format's number of the method, and the bytes of an entry's own header."""


class _DataSet(msgspec.Struct):
    name: str | None = None
    samples: int | None = None


class _Config(msgspec.Struct):
    epochs: int | None = None


class _Spec(msgspec.Struct):
    task: str
    model: str
    created: str = ""
    dataset: _DataSet = msgspec.field(default_factory=_DataSet)
    config: _Config = msgspec.field(default_factory=_Config)
    packages: dict[str, Any] = msgspec.field(default_factory=dict)
    task_version: int | str = 0
    task_args: dict[str, Any] = msgspec.field(default_factory=dict)

    @property
    def intervention(self) -> str:
        """As `mapflow export` writes it; other logs are of models without cuts."""
        named = self.task_args.get("intervention") if "mapflow" in self.packages else None
        return named if isinstance(named, str) else "full"


class _Step(msgspec.Struct):
    solver: str


class _Plan(msgspec.Struct):
    steps: list[_Step] = msgspec.field(default_factory=list)


class _Scored(msgspec.Struct):
    name: str
    scorer: str


class _Headline(msgspec.Struct):
    scorer: str
    score: str


class _Results(msgspec.Struct):
    scores: list[_Scored] = msgspec.field(default_factory=list)
    headline: _Headline | None = None


class _Header(msgspec.Struct):
    version: int
    status: str
    eval: _Spec
    plan: _Plan = msgspec.field(default_factory=_Plan)
    results: _Results | None = None


class _Score(msgspec.Struct):
    value: Any = None
    answer: Any = None


class _Sample(msgspec.Struct):
    """A sample's summary, or the same fields of a whole sample."""

    id: int | str
    epoch: int
    target: str | list[str] = ""
    choices: list[str] | None = None
    metadata: Any = None
    scores: dict[str, _Score] | None = None
    error: Any = None


class _Log(_Header, kw_only=True):
    """A `.json` log, which is one JSON object."""

    samples: list[_Sample] | None = None


def log_files(place: Path) -> list[Path]:
    """All logs in or under `place`, or `place` itself if it is one."""
    if place.is_file():
        if place.suffix == ".eval":
            return [place]
        return [place] if place.suffix == ".json" and _is_log(place) else []
    named = (path for path in place.rglob("*_*") if FILE_NAME.fullmatch(path.name))
    return sorted(path for path in named if path.is_file())


def _is_log(file: Path) -> bool:
    begin = _read(file, 1 << 16)
    return b'"eval"' in begin and b'"status"' in begin


def _read(file: Path, most: int) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(most)
    except OSError as error:
        raise MapflowError(f"{file} cannot be read: {error.strerror}") from None


def read_log(files: Sequence[Path]) -> tuple[dict[str, Any], Iterator[Record]]:
    """The manifest and one record per sample, of the newest log of every task (and intervention).

    Of several logs of a task, those of finished evaluations are preferred.

    Raises MapflowError for logs of several models, a log with several answers to a question, and a
    log that cannot be read or has no single score of right or wrong.
    """
    headers = [(file, _header(file)) for file in files]
    if len(models := sorted({header.eval.model for _, header in headers})) > 1:
        raise MapflowError(
            f"{str(files[0].parent)!r} holds Inspect logs of {len(models)} models"
            f" ({shortened(', '.join(models), 300)}); name one log, e.g. {str(files[0])!r}"
        )
    headers.sort(key=lambda one: (one[1].status == "success", one[1].eval.created, one[0].name))
    newest = {
        (header.eval.task, header.eval.intervention): (file, header) for file, header in headers
    }
    records: list[Record] = []
    sizes: dict[str, int] = {}
    for file, header in newest.values():
        own = list(_records(file, header, len(newest) == 1))
        records += own
        if own and (number := header.eval.dataset.samples or 0) > 0:
            sizes[own[0].benchmark] = number
    spec = headers[-1][1].eval
    versions = {name: str(version) for name, version in spec.packages.items()}
    versions |= {
        f"task {task}": str(header.eval.task_version) for (task, _), (_, header) in newest.items()
    }
    named = dict.fromkeys(name for _, name in newest)
    manifest = {
        "identity": {"model": spec.model, "versions": versions},
        "interventions": {name: name for name in sorted(named, key=lambda one: one != "full")},
        "logged_by": "Inspect",
        "questions": sizes,
    }
    return manifest, iter(records)


def _header(file: Path) -> _Header:
    if file.suffix == ".json":
        return _whole(file)
    return typed_json(_entry(file, HEADER), _Header, str(file), "an Inspect log")


def _whole(file: Path) -> _Log:
    data = _read(file, LARGEST_JSON + 1)
    if len(data) > LARGEST_JSON:
        raise MapflowError(
            f"{file} has more than {LARGEST_JSON:,} bytes: it is not read; convert it with"
            " `inspect log convert --to eval`"
        )
    return typed_json(data, _Log, str(file), "an Inspect log")


def _samples(file: Path, header: _Header) -> list[_Sample]:
    if isinstance(header, _Log):
        return header.samples or []
    return typed_json(
        _entry(file, SUMMARIES), list[_Sample], str(file), "the summaries of an Inspect log"
    )


def _records(file: Path, header: _Header, alone: bool) -> Iterator[Record]:
    """The records of one log.

    Beside other logs, one whose samples are neither right nor wrong yields a record without
    `correct` instead of an error.
    """
    samples, task = _samples(file, header), header.eval.task
    benchmark = f"{task.replace('/', ':')} (Inspect)"
    scorer, part = _headline(header, samples)
    protocol = ", ".join(dict.fromkeys([*(step.solver for step in header.plan.steps), scorer]))
    seen: set[str] = set()
    for sample in samples:
        number = f"{sample.id:06d}" if isinstance(sample.id, int) else sample.id
        ids = (f"{benchmark}/{number}", cluster_of(sample.metadata))
        check_ids(str(file), *ids, task)
        if number in seen:
            epochs = header.eval.config.epochs or 1
            raise MapflowError(
                f"{file}: sample {quoted(sample.id)} has several answers ({epochs} epochs); tests"
                " here compare one answer per question: run it with --epochs 1"
            )
        seen.add(number)
        score = (sample.scores or {}).get(scorer)
        error = _error(sample, score)
        correct = None if error or score is None else _correct(score.value, part)
        if correct is None and error is None and alone:
            value = score.value if score else None
            raise MapflowError(
                f"{file}: sample {quoted(sample.id)} has the {scorer} score {quoted(value)}, which"
                " is neither right (C, 1) nor wrong (I, 0); only such logs can be compared"
            )
        targets = [sample.target] if isinstance(sample.target, str) else sample.target
        answer = score.answer if score and isinstance(score.answer, str) else None
        yield Record(
            question_id=ids[0],
            video_id=ids[1],
            task=task,
            intervention=header.eval.intervention,
            seed=None,
            protocol=protocol,
            n_options=len(sample.choices or ()) if len(targets) == 1 else 0,
            target=", ".join(targets),
            prediction=None if error else answer,
            correct=correct,
            valid=bool(answer) if scorer == "choice" and not error else None,
            error=error,
        )


def _headline(header: _Header, samples: Sequence[_Sample]) -> tuple[str, str]:
    """The scorer that counts, and the part of its score where that is a mapping.

    It is the log's headline, else the first score, as in Inspect's own viewer.
    """
    results = header.results
    if results and results.headline:
        return results.headline.scorer, results.headline.score
    if results and results.scores:
        return results.scores[0].scorer, results.scores[0].name
    names = [name for sample in samples for name in sample.scores or ()]
    return (names[0], names[0]) if names else ("no scorer", "")


def _correct(value: Any, part: str) -> bool | None:
    if isinstance(value, Mapping):
        value = value.get(part)
    return MARKS.get(value) if isinstance(value, str) else right_or_wrong(value)


def _error(sample: _Sample, score: _Score | None) -> str | None:
    """Why the sample has no answer; None if it has one."""
    if sample.error:
        said = sample.error.get("message") if isinstance(sample.error, Mapping) else sample.error
        return shortened(" ".join(str(said).split()), 500) or "an error without a message"
    return "the sample was not scored" if score is None else None


def _entry(file: Path, name: str) -> bytes:
    """An entry of the archive, unpacked.

    Raises MapflowError for a damaged archive, one without the entry, which an unfinished evaluation
    leaves, and for an entry of more than `LARGEST_JSON` bytes.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            try:
                about = archive.getinfo(name)
            except KeyError:
                raise MapflowError(
                    f"{file} has no {name}: not an Inspect log, or its evaluation did not finish"
                ) from None
            if about.compress_type == ZSTANDARD:
                data = _unpacked(file, about)
            else:
                with archive.open(about) as stream:
                    data = stream.read(LARGEST_JSON + 1)
    except MapflowError:
        raise
    except Exception as error:  # zipfile raises a dozen kinds for damaged archives
        raise MapflowError(f"{file} is not an archive that can be read: {error}") from None
    if len(data) > LARGEST_JSON:
        raise MapflowError(f"{file}: {name} has more than {LARGEST_JSON:,} bytes: it is not read")
    return data


def _unpacked(file: Path, about: zipfile.ZipInfo) -> bytes:
    """An entry packed with Zstandard, up to one byte more than `LARGEST_JSON`."""
    import pyarrow

    with file.open("rb") as stream:
        stream.seek(about.header_offset)
        head = stream.read(LOCAL_HEADER)
        lengths = (int.from_bytes(head[at : at + 2], "little") for at in (26, 28))
        stream.seek(about.header_offset + LOCAL_HEADER + sum(lengths))
        packed = stream.read(min(about.compress_size, file.stat().st_size))
    found = bytearray()
    with pyarrow.CompressedInputStream(pyarrow.BufferReader(packed), "zstd") as unpacking:
        while len(found) <= LARGEST_JSON and (block := unpacking.read(1 << 20)):
            found += block
    if len(found) <= LARGEST_JSON and zlib.crc32(found) != about.CRC:
        raise ValueError(f"{about.filename} is damaged")
    return bytes(found)

"""Which tool wrote a log, and its content as a manifest and records.

A reader is a pair of functions: `files(place)` lists the logs of its tool in or under `place`, and
`read(files)` returns the manifest and the records. A new tool is a module and a line in `_readers`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from mapflow.results.contract.errors import MapflowError
from mapflow.results.records.record import Record

Logged = tuple[dict[str, Any], Iterator[Record]]


class LogReader(NamedTuple):
    """The reader of one tool's logs; a file that several can read belongs to the first of them."""

    tool: str
    files: Callable[[Path], list[Path]]
    read: Callable[[Sequence[Path]], Logged]


def read_logs(place: Path) -> Logged | None:
    """The manifest and the records of the logs in `place`, a file or a folder; None without logs.

    The manifest has `logged_by`, the tool, and `questions`: benchmark → its number of questions, as
    far as the tool has noted it.

    Raises MapflowError for logs of several tools or models, and for a log that cannot be read.
    """
    found = [(one, files) for one in _readers() if (files := one.files(place))]
    if len(found) > 1 and place.is_dir():
        tools = " and of ".join(f"{one.tool} ({files[0].name})" for one, files in found)
        raise MapflowError(f"{str(place)!r} holds logs of {tools}; name one of the files")
    if not found:
        return None
    manifest, records = found[0][0].read(found[0][1])
    return _encodable(manifest), (
        one if _is_encodable(one) else replace(one, **_encodable(vars(one))) for one in records
    )


def _is_encodable(record: Record) -> bool:
    try:
        "".join(value for value in vars(record).values() if isinstance(value, str)).encode()
    except UnicodeEncodeError:
        return False
    return True


def _encodable(value: Any) -> Any:
    """The value with codes in place of halves of surrogate pairs, which no file can hold."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_encodable(name): _encodable(one) for name, one in value.items()}
    return [_encodable(one) for one in value] if isinstance(value, list) else value


def _readers() -> tuple[LogReader, ...]:
    """Imported here, because most run folders are mapflow's own and need none of them."""
    from mapflow.results.logs import harness_logs, inspect_logs, lmms_eval_logs

    return (
        LogReader("lm-evaluation-harness", harness_logs.sample_files, harness_logs.read_samples),
        LogReader("Inspect", inspect_logs.log_files, inspect_logs.read_log),
        LogReader("lmms-eval", lmms_eval_logs.sample_files, lmms_eval_logs.read_samples),
    )

"""What the readers of logs share: lines of bounded size, typed JSON, clusters, the newest logs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.files import checked
from mapflow.results.contract.visible_text import counted, quoted

LONGEST_LINE = 64 << 20
"""Characters. A longer line is refused before it fills the memory."""

CLUSTER_NAMES = ("video_id", "videoID", "video", "video_name", "video_path", "cluster_id")
"""Fields of a document that name what its question shares with others, in order of preference."""

T = TypeVar("T")


def log_lines(path: Path) -> Iterator[tuple[str, str]]:
    """(place as "file:line", text) of every line that is not empty.

    Raises MapflowError for a file that cannot be read, is not UTF-8 or has too long a line.
    """
    try:
        with path.open(encoding="utf-8") as lines:
            number = 0
            while line := lines.readline(LONGEST_LINE):
                number += 1
                if len(line) == LONGEST_LINE:
                    raise MapflowError(
                        f"{path}:{number}: the line has more than {LONGEST_LINE:,} characters: it"
                        " is not read"
                    )
                if line.strip():
                    yield f"{path}:{number}", line
    except (OSError, UnicodeDecodeError) as error:
        raise MapflowError(f"{path} cannot be read: {error}") from None


def typed(value: Any, kind: type[T], where: str, what: str) -> T:
    """A JSON value as a msgspec structure. Raises MapflowError, naming `where`, for another."""
    return checked(value, kind, f"{where}: not {what}")


def typed_json(data: bytes | str, kind: type[T], where: str, what: str) -> T:
    """JSON as a msgspec structure; fields that the structure lacks build nothing.

    Python's own tools also write NaN, which is not JSON: such a text is read by `json`.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise MapflowError(f"{where}: not {what} ({error})") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if len(data) > LONGEST_LINE:
            raise MapflowError(f"{where}: not {what} ({error})") from None
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise MapflowError(f"{where}: not {what} ({error})") from None
    return typed(value, kind, where, what)


def cluster_of(document: Any) -> str:
    """The video, or what else the document says its question shares with others; else empty."""
    if isinstance(document, Mapping):
        for name in CLUSTER_NAMES:
            value = document.get(name)
            if (isinstance(value, str) and value) or type(value) is int:
                return str(value)
    return ""


def right_or_wrong(value: Any) -> bool | None:
    """A score of 0 or 1 as a truth value; None for every other value."""
    return bool(value) if isinstance(value, (bool, int, float)) and value in (0, 1) else None


def newest_of_each_task(place: Path, named: Iterable[tuple[str, Path]]) -> list[Path]:
    """The last of the (task, log) pairs of every task.

    Raises MapflowError if these lie in several folders, because they may belong to several models.
    """
    newest = dict(one for one in named if one[1].is_file())  # a pipe would never be read to its end
    folders = sorted({str(path.parent) for path in newest.values()})
    if len(folders) > 1:
        shown = ", ".join(quoted(one, 200) for one in folders[:3])
        more = f" and {counted(len(folders) - 3, 'other')}" if len(folders) > 3 else ""
        raise MapflowError(
            f"{str(place)!r} holds sample logs in several folders ({shown}{more}); name one"
        )
    return list(newest.values())

"""Publishers' question files, checked: every error is one line that names question and field.

A row is a JSON object; these functions turn its fields into text, options and bounds, or raise
MapflowError. msgspec checks the types; it is imported by the first row that is read.
"""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Any

from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import LETTERS
from mapflow.results.contract.visible_text import quoted, visible

Row = Mapping[str, Any]
LONGEST_NAME = 1024
LONGEST_VIDEO = 10_000_000
"""Seconds."""
SOME_TEXT = "\\A[^\ud800-\udfff]*[^\\s\ud800-\udfff][^\ud800-\udfff]*\\Z"
"""Not blank, and without halves of surrogate pairs, which JSON can spell and nothing can encode."""


@dataclass(frozen=True)
class Entry:
    """A checked row: the question and its video.

    video: the file, relative to the subtask's folder of videos; `video_field` is the row's field
        that names it.
    target: the right option's index; for an open-ended question, what the answer begins with.
    start, end: bounds of the clip in seconds; None for the whole file.
    answer_begin: the text that an open-ended question's answer is begun with.
    category: the group that the question is counted in besides its subtask; may be empty.
    duration: the video's stated length in seconds, where frames are chosen by it.
    """

    video: str
    video_id: str
    stem: str
    options: tuple[str, ...]
    target: int | str
    start: float | None = None
    end: float | None = None
    answer_begin: str = ""
    category: str = ""
    video_field: str = "video"
    duration: float | None = None


def candidates_entry(
    row: Row, subtask: str, question_id: str, *, bounds_required: bool = False
) -> Entry:
    """A row of TVBench's layout: {video, question, candidates, answer[, start, end]}.

    The answer is a candidate's *text*: "4" is text, not an index. Raises MapflowError naming
    question and field.
    """
    options = options_of(row, "candidates", question_id)
    answer = answer_text_of(row, "answer", options, question_id)
    start, end = bounds_of(row, question_id, required=bounds_required)
    name = file_name_of(row, "video", question_id)
    return Entry(
        video=name,
        video_id=f"{subtask}/{name}",
        stem=text_of(row, "question", question_id),
        options=tuple(options),
        target=options.index(answer),
        start=start,
        end=end,
    )


def read_rows(path: Path) -> list[tuple[str, Row]]:
    """(number, row) of a question file: a list of rows, or an object whose keys are the numbers.

    A file that ends in .parquet is a table of rows.

    Raises MapflowError for a missing or unreadable file and for anything in it that is not a row.
    """
    try:
        if path.suffix == ".parquet":
            return _table_rows(path)
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise MapflowError(f"{path}: no such question file") from None
    except (OSError, ValueError) as error:
        raise MapflowError(f"{path}: not a readable question file ({error})") from None
    return parse_rows(text, path)


def _table_rows(path: Path) -> list[tuple[str, Row]]:
    """Raises OSError or ValueError for a file that is missing or not a table."""
    from pyarrow import parquet

    rows: list[Row] = parquet.read_table(path).to_pylist()
    if not rows:
        raise MapflowError(f"{path}: holds no questions")
    return [(str(number), row) for number, row in enumerate(rows)]


def parse_rows(text: str, path: Path | str) -> list[tuple[str, Row]]:
    """`read_rows` for a file's text; `path` names it in errors."""
    try:
        content = json.loads(text, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise MapflowError(f"{path}: not a readable question file ({error})") from None
    if isinstance(content, list):
        content = {str(number): row for number, row in enumerate(content)}
    if not isinstance(content, dict) or not content:
        raise MapflowError(f"{path}: holds no questions")
    for number, row in content.items():
        if not re.search(SOME_TEXT, number):
            raise MapflowError(f"{path}: {quoted(number)} is not a question number")
        if not isinstance(row, dict):
            raise MapflowError(f"{path}: question {number} is {quoted(row)}, not an object")
    _refuse_alike(list(content), path)
    return list(content.items())


def _refuse_alike(numbers: list[str], path: Path | str) -> None:
    """Raises MapflowError for question numbers that differ in spelling only.

    "1" and "0001" have one question id; others ("a" and "A", "1" and "1 ") look the same in tables
    and are the same to some file systems.
    """
    seen: dict[str, str] = {}
    for number in numbers:
        spelled = " ".join(unicodedata.normalize("NFKC", visible(number)).casefold().split())
        digits = "".join(str(unicodedata.decimal(sign, "")) for sign in spelled)
        key = digits.lstrip("0") if spelled.isdecimal() else spelled
        if key in seen:
            raise MapflowError(
                f"{path}: question numbers {quoted(seen[key])} and {quoted(number)} differ in"
                " spelling only; give one of them another number"
            )
        seen[key] = number


def text_of(row: Row, field: str, where: str) -> str:
    """A field that must hold some text."""
    return _field(row, field, _types()["text"], where, "must be some text")


def file_name_of(row: Row, field: str, where: str) -> str:
    """A file's name relative to the videos' folder: no absolute path, no `..`, no backslash.

    One file has one name: `a//b.mp4` and `./a/b.mp4` are `a/b.mp4`.
    """
    name = text_of(row, field, where)
    parts = PurePosixPath(name).parts
    if (
        name.startswith(("/", "~"))
        or PureWindowsPath(name).drive
        or "\\" in name
        or visible(name) != name
        or len(name) > LONGEST_NAME
        or ".." in parts
        or not parts
    ):
        raise _wrong(where, field, name, "must name a file inside the data folder")
    return "/".join(parts)


def options_of(row: Row, field: str, where: str) -> list[str]:
    """Two or more answers to choose from; numbers become their text."""
    demand = f"must list 2 to {len(LETTERS)} options, each some text or a number"
    return [str(value) for value in _field(row, field, _types()["options"], where, demand)]


def answer_text_of(row: Row, field: str, options: list[str], where: str) -> str:
    """The right option's text: "4" is text, not an index."""
    answer = str(_field(row, field, _types()["option"], where, "must be some text"))
    if answer not in options:
        raise _wrong(where, field, answer, "is not among the options")
    return answer


def answer_index_of(row: Row, field: str, options: list[str], where: str) -> int:
    """The right option's index."""
    from msgspec import Meta

    index = Annotated[int, Meta(ge=0, lt=len(options))]
    return _field(row, field, index, where, f"must be an index from 0 to {len(options) - 1}")


def bounds_of(row: Row, where: str, *, required: bool) -> tuple[float | None, float | None]:
    """`start` and `end` of the clip, seconds. Both or neither; where they are required, both."""
    if not required and row.get("start") is None and row.get("end") is None:
        return None, None
    start, end = (seconds_of(row, field, where) for field in ("start", "end"))
    if start >= end:
        raise _wrong(where, "start", start, f"must lie before end ({end})")
    return start, end


def seconds_of(row: Row, field: str, where: str) -> float:
    """A field that must hold a number of seconds."""
    demand = f"must be a number of seconds, 0 to {LONGEST_VIDEO:,}"
    return _field(row, field, _types()["seconds"], where, demand)


@cache
def _types() -> Mapping[str, Any]:
    """The types of fields by name. Bounds refuse NaN and infinity, too."""
    from msgspec import Meta

    text = Annotated[str, Meta(pattern=SOME_TEXT)]
    option = text | int | Annotated[float, Meta(ge=-sys.float_info.max, le=sys.float_info.max)]
    return {
        "text": text,
        "option": option,
        "options": Annotated[list[option], Meta(min_length=2, max_length=len(LETTERS))],
        "seconds": Annotated[float, Meta(ge=0, le=LONGEST_VIDEO)],
    }


def _field(row: Row, field: str, kind: Any, where: str, demand: str) -> Any:
    """The field's value; `demand` says in an error what it must be."""
    import msgspec

    if row.get(field) is None:
        raise MapflowError(f"{where}: field {field!r} is missing")
    try:
        return msgspec.convert(row[field], kind)
    except (ValueError, OverflowError):
        raise _wrong(where, field, row[field], demand) from None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises ValueError for a repeated field, of which `json` keeps the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(
            f"field {next(name for name in names if names.count(name) > 1)!r} is there twice"
        )
    return found


def _wrong(where: str, field: str, value: Any, demand: str) -> MapflowError:
    return MapflowError(f"{where}: field {field!r}: {quoted(value)} {demand}")

"""The base of all records: common fields, failed questions, one line of JSON.

A record file holds one line per record. Reading checks the type of every field against its
dataclass, so whatever is read can be written again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from types import UnionType
from typing import Any, ClassVar, TypeVar, Union, get_args, get_origin, get_type_hints

from tabulate import tabulate

from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import Question, check_ids
from mapflow.results.contract.visible_text import quoted

Kind = TypeVar("Kind", bound="JsonlRecord")
Cell = TypeVar("Cell", float, str)

NOT_FINITE = "the model's logits are not finite"
"""The error of a question whose logits hold NaN or infinity."""


def benchmark_of(question_id: str, task: str) -> str:
    """The benchmark, which a question's id begins with; else the task.

    lmms-eval's own tasks are marked: its `tomato` and `videomme` ask and score otherwise than the
    benchmarks of these names here. Ids of their questions begin with the task.
    """
    first, slash, _ = question_id.partition("/")
    if not slash:
        return task
    return f"{first} (lmms-eval)" if first == task else first


class JsonlRecord:
    """Base of the frozen dataclasses that a folder keeps, one per line of `FILE`.

    A record belongs to one question and to one intervention (or route: `NAMED_BY` is the field with
    its name). `RUN` says what kind of folder holds such records. Each dataclass lists its fields in
    the order of the file; the fields below are in all of them. Fields in `OPTIONAL` are written
    only if they are not None. `error` says why a question failed, the fields of its answer are then
    empty. Records of analyses also have `left_out`: why the question is not in the sample
    (`--samples`); the other fields are then empty, too.
    """

    FILE: ClassVar[str]
    RUN: ClassVar[str]
    NAMED_BY: ClassVar[str] = "intervention"
    OPTIONAL: ClassVar[frozenset[str]] = frozenset()

    question_id: str
    video_id: str
    task: str
    protocol: str
    error: str | None

    @property
    def why_left_out(self) -> str | None:
        """Why `--samples` left the question out; None if it was measured or failed."""
        return getattr(self, "left_out", None)

    @property
    def measured(self) -> bool:
        return self.error is None and self.why_left_out is None

    @property
    def key(self) -> tuple[str, str]:
        """Question and intervention (or route): unique within a folder, and its order."""
        return self.question_id, getattr(self, self.NAMED_BY)

    @classmethod
    def of(cls: type[Kind], question: Question, name: str, **fields: Any) -> Kind:
        """The record of `question` under the intervention or route called `name`."""
        return cls(**question.identity, **{cls.NAMED_BY: name}, **fields)

    @classmethod
    def failed(cls: type[Kind], question: Question, name: str, reason: str, **fields: Any) -> Kind:
        """The record of a question that failed. `reason` becomes one line."""
        return cls.of(question, name, **fields, error=" ".join(reason.split()))

    @property
    def benchmark(self) -> str:
        """As `benchmark_of`."""
        return benchmark_of(self.question_id, self.task)

    def to_line(self) -> str:
        """One line of JSON, without the newline. Raises ValueError on NaN and infinity."""
        values = {
            name: value
            for name, value in vars(self).items()
            if value is not None or name not in self.OPTIONAL
        }
        return json.dumps(values, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_line(cls: type[Kind], line: str, where: str) -> Kind:
        """The record of one line, with tuples for JSON's lists.

        Raises MapflowError, naming `where`, if the line is not such a record.
        """
        return _from_line(cls, line, where)


class Summary:
    """Base of the dataclasses that summarize the records of one intervention (or route, as
    `NAMED_BY`).
    """

    NAMED_BY: ClassVar[str] = "intervention"

    n: int
    errors: int

    @property
    def name(self) -> str:
        """The intervention or route."""
        return getattr(self, self.NAMED_BY)

    def to_json(self) -> dict[str, Any]:
        """All fields but the name, which is the key in summary.json."""
        return {
            field: value
            for field, value in asdict(self).items()  # pyright: ignore[reportArgumentType]
            if field != self.NAMED_BY
        }


def by_benchmark(records: Iterable[Kind]) -> dict[str, list[Kind]]:
    """Benchmark → its records, in order of first appearance."""
    groups: dict[str, list[Kind]] = {}
    for record in records:
        groups.setdefault(record.benchmark, []).append(record)
    return groups


def means(curves: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Layer by layer, the mean over curves of equal length; empty without curves."""
    return tuple(sum(column) / len(column) for column in zip(*curves, strict=True))


def layer_table(
    columns: Sequence[tuple[str, Sequence[Cell]]],
    cell: Callable[[Cell], str],
    counts: Iterable[Sequence[Any]],
) -> str:
    """A table with one row per layer, one column per (header, curve) and the rows `counts` below.

    Curves may end early, as an early exit does; the cells of missing layers hold a dash.
    """
    depth = max((len(curve) for _, curve in columns), default=0)
    rows = [
        [layer + 1, *(cell(curve[layer]) if layer < len(curve) else "–" for _, curve in columns)]
        for layer in range(depth)
    ]
    headers = ["layer", *(header for header, _ in columns)]
    return tabulate([*rows, *counts], headers=headers, disable_numparse=True, stralign="right")


def _from_line(kind: type[Kind], line: str, where: str) -> Kind:
    try:
        values: Any = json.loads(line, parse_constant=_refuse_constant)
        # half a surrogate pair, escaped or not, cannot be encoded again
        (json.dumps(values, ensure_ascii=False) if "\\u" in line else line).encode()
    except (ValueError, RecursionError) as error:
        raise MapflowError(f"{where}: not a record ({error})") from None
    checks = _checks(kind)
    if isinstance(values, dict):
        check_ids(where, *map(values.get, ("question_id", "video_id", "task")))
    if not isinstance(values, dict) or not values.keys() <= checks.keys():
        raise MapflowError(f"{where}: not a record of this version of mapflow")
    for name, value in values.items():
        if type(value) is list:
            values[name] = value = tuple(value)
        if not checks[name](value):
            wrong = "not text" if get_type_hints(kind)[name] is str else "not of its type"
            raise MapflowError(f"{where}: not a record ({name} is {quoted(value)}, {wrong})")
    try:
        return kind(**values)
    except TypeError as error:
        raise MapflowError(f"{where}: not a record ({error})") from None


Check = Callable[[Any], bool]


@cache
def _checks(kind: type) -> Mapping[str, Check]:
    """Field name → check that a value has the type which the dataclass names."""
    return {
        name: _check(hint)
        for name, hint in get_type_hints(kind).items()
        if get_origin(hint) is not ClassVar
    }


def _check(hint: Any) -> Check:
    """The check of one type: JSON's own types, sequences and mappings of them, and unions."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (UnionType, Union):
        checks = [_check(one) for one in inner]
        return lambda value: any(check(value) for check in checks)
    if origin in (tuple, Sequence):
        each = _check(inner[0])
        return lambda value: isinstance(value, (tuple, list)) and all(map(each, value))
    if origin in (dict, Mapping):
        each = _check(inner[1])
        return lambda value: isinstance(value, dict) and all(map(each, value.values()))
    if hint is float:
        return lambda value: (type(value) is float and math.isfinite(value)) or _is_count(value)
    if hint is int:
        return _is_count
    wanted = type(None) if hint is None else hint
    return lambda value: type(value) is wanted


def _is_count(value: Any) -> bool:
    return type(value) is int and abs(value) < 2**63


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")

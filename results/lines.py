"""A line of JSON for a flat record, and back: what all kinds of records in a run's folder have in common."""

from __future__ import annotations

import json
from dataclasses import fields
from functools import cache
from typing import Any, ClassVar, Protocol, TypeVar

from mapflow.results.errors import MapflowError


class Line(Protocol):
    """A frozen dataclass that a folder keeps, one a line in `FILE`, which makes it the folder of `RUN`; `key` makes it
    unique and sorts it."""

    FILE: ClassVar[str]
    RUN: ClassVar[str]

    @property
    def key(self) -> tuple[str, str]: ...

    def to_line(self) -> str: ...

    @classmethod
    def from_line(cls, line: str, where: str) -> Any: ...


Kind = TypeVar("Kind")


def to_line(record: Any) -> str:
    """One line of JSON, without the newline. Raises ValueError on NaN or infinity, which are no measurements."""
    return json.dumps(vars(record), ensure_ascii=False, allow_nan=False)


def from_line(kind: type[Kind], line: str, where: str) -> Kind:
    """A `kind` of dataclass; its sequences are tuples. Raises MapflowError naming `where` for anything else."""
    try:
        values: Any = json.loads(line, parse_constant=_refuse_constant)
    except ValueError as error:
        raise MapflowError(f"{where}: not a record ({error})") from None
    if not isinstance(values, dict) or not values.keys() <= _names(kind):
        raise MapflowError(f"{where}: not a record of this version of mapflow")
    for name, value in values.items():
        if type(value) is list:
            values[name] = tuple(value)
    try:
        return kind(**values)
    except TypeError as error:
        raise MapflowError(f"{where}: not a record ({error})") from None


@cache
def _names(kind: type) -> frozenset[str]:
    return frozenset(field.name for field in fields(kind))


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")

"""A line of JSON for a flat record, and back: what all kinds of records in a run's folder have in common.

What comes back has the types that its dataclass names and can be written again: anything else is no record.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import UnionType
from typing import Any, ClassVar, TypeVar, Union, get_args, get_origin, get_type_hints

from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.visible_text import quoted

Kind = TypeVar("Kind")


class Line:
    """A frozen dataclass that a folder keeps, one a line in `FILE`, which makes it the folder of `RUN`; `key` makes it
    unique and sorts it, `error` says why it holds no answer."""

    FILE: ClassVar[str]
    RUN: ClassVar[str]

    error: str | None

    @property
    def key(self) -> tuple[str, str]:
        raise NotImplementedError

    def to_line(self) -> str:
        """One line of JSON, without the newline. Raises ValueError on NaN or infinity, which are no measurements."""
        return json.dumps(vars(self), ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_line(cls: type[Kind], line: str, where: str) -> Kind:
        """Raises MapflowError naming `where` for anything that is not such a record; its sequences are tuples."""
        return _from_line(cls, line, where)


def _from_line(kind: type[Kind], line: str, where: str) -> Kind:
    try:
        values: Any = json.loads(line, parse_constant=_refuse_constant)
        # half a surrogate pair, spelled out or not, could never be written again
        (json.dumps(values, ensure_ascii=False) if "\\u" in line else line).encode()
    except (ValueError, RecursionError) as error:
        raise MapflowError(f"{where}: not a record ({error})") from None
    checks = _checks(kind)
    if not isinstance(values, dict) or not values.keys() <= checks.keys():
        raise MapflowError(f"{where}: not a record of this version of mapflow")
    for name, value in values.items():
        if type(value) is list:
            values[name] = value = tuple(value)
        if not checks[name](value):
            kind_said = (
                "not text" if get_type_hints(kind)[name] is str else "nothing that it may be"
            )
            raise MapflowError(f"{where}: not a record ({name} is {quoted(value)}, {kind_said})")
    try:
        return kind(**values)
    except TypeError as error:
        raise MapflowError(f"{where}: not a record ({error})") from None


Check = Callable[[Any], bool]


@cache
def _checks(kind: type) -> Mapping[str, Check]:
    """Field → does a value have the type that the dataclass names?"""
    return {
        name: _check(hint)
        for name, hint in get_type_hints(kind).items()
        if get_origin(hint) is not ClassVar
    }


def _check(hint: Any) -> Check:
    """For the types that records are made of: JSON's own, sequences and mappings of them, and unions."""
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

"""The base of all records: common fields, failed questions, one line of JSON.

A record file holds one line per record. Reading checks the type of every field against its
dataclass, so whatever is read can be written again. msgspec, which checks, is imported by the first
line that is read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict
from dataclasses import fields as dataclass_fields
from functools import cache
from types import UnionType
from typing import Annotated, Any, ClassVar, TypeVar, Union, get_args, get_origin, get_type_hints

from tabulate import tabulate

from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.files import checked_json
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
    only if they are not None. Fields in `PER_LAYER` hold one entry per layer, or sequences of such
    by name. `error` says why a question failed, the fields of its answer are then
    empty. Records of analyses also have `left_out`: why the question is not in the sample
    (`--samples`); the other fields are then empty, too.
    """

    FILE: ClassVar[str]
    RUN: ClassVar[str]
    NAMED_BY: ClassVar[str] = "intervention"
    OPTIONAL: ClassVar[frozenset[str]] = frozenset()
    PER_LAYER: ClassVar[tuple[str, ...]] = ()

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

    def contradiction(self) -> str | None:
        """Why the fields of a measured record cannot belong together; None if they can."""
        depths = self._depths()
        if len({*depths.values()}) > 1 or 0 in depths.values():
            listed = ", ".join(f"{field} {n}" for field, n in depths.items())
            return f"not one entry per layer: {listed}"
        return None

    @property
    def depth(self) -> int | None:
        """Number of layers of a measured record; None if it has no entries by layer."""
        return next(iter(self._depths().values()), None) if self.measured else None

    def _depths(self) -> dict[str, int]:
        """The entries of each sequence over layers that is there."""
        depths: dict[str, int] = {}
        for field in self.PER_LAYER:
            value = getattr(self, field)
            if isinstance(value, Mapping):
                depths |= {f"{field}[{quoted(name)}]": len(one) for name, one in value.items()}
            elif value is not None:
                depths[field] = len(value)
        return depths

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

    def to_line(self, run: str | None = None) -> str:
        """One line of JSON, without the newline. Raises ValueError on NaN and infinity.

        run: the identity of the run that the record belongs to (`runs/manifest.py`).
        """
        values = {
            name: value
            for name, value in vars(self).items()
            if value is not None or name not in self.OPTIONAL
        }
        if run is not None:
            values["run"] = run
        return json.dumps(values, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_line(cls: type[Kind], line: str | bytes, where: str) -> Kind:
        """The record of one line, with tuples for JSON's lists.

        Raises MapflowError, naming `where`, if the line is not such a record.
        """
        return cls.with_run(line, where)[0]

    @classmethod
    def with_run(cls: type[Kind], line: str | bytes, where: str) -> tuple[Kind, str | None]:
        """As `from_line`, and the identity of the record's run."""
        data = line.encode("utf-8", "surrogatepass") if isinstance(line, str) else line
        record, run = checked_json(data, _reader(cls), f"{where}: not a record")
        check_ids(where, record.question_id, record.video_id, record.task)
        if not record.key[1].strip():
            raise MapflowError(f"{where}: not a record (its {cls.NAMED_BY} has no name)")
        if record.PER_LAYER and record.measured and (reason := record.contradiction()):
            raise MapflowError(f"{where}: not a record ({reason})")
        return record, run


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


@cache
def line_type(kind: type[JsonlRecord]) -> Any:
    """The msgspec type of a line: the fields of the dataclass and `run`, and no others."""
    from msgspec import defstruct

    hints = get_type_hints(kind)
    fields = [
        (one.name, _counting(hints[one.name]), *([] if one.default is MISSING else [one.default]))
        for one in dataclass_fields(kind)  # pyright: ignore[reportArgumentType]
    ]
    return defstruct(
        kind.__name__, [*fields, ("run", str | None, None)], forbid_unknown_fields=True
    )


@cache
def _reader(kind: type[JsonlRecord]) -> Callable[[bytes], tuple[Any, str | None]]:
    """Decodes a line: the record, and the run that it belongs to."""
    import msgspec

    decoder = msgspec.json.Decoder(line_type(kind))

    def read(line: bytes) -> tuple[Any, str | None]:
        found = decoder.decode(line)
        return msgspec.convert(found, kind, from_attributes=True), found.run

    return read


def _counting(hint: Any) -> Any:
    """A type whose integers are counts and indices of 64 bits."""
    from msgspec import Meta

    if hint is int:
        return Annotated[int, Meta(ge=0, le=2**63 - 1)]
    inner = tuple(map(_counting, get_args(hint)))
    if isinstance(hint, UnionType):
        return Union[inner]  # noqa: UP007
    return get_origin(hint)[inner] if inner else hint

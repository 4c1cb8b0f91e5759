"""What others have published, so that tables can show their rows beside ours.

The numbers are in published.yaml, as printed, with the table that each comes from. Nothing here is
computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from mapflow.results.contract.errors import MapflowError

FILE = Path(__file__).with_name("published.yaml")
AVERAGES = ("micro", "macro", "unstated")


@dataclass(frozen=True)
class PublishedRow:
    """One row of a published table.

    accuracy: percent by task; accuracy_drop: percentage points by task; relative_change: of the
    answer's probability, percent, by bins of five layers; edges: millions, one head, all layers;
    edges_share: percent of causal attention. average says how `accuracy` is averaged over
    subtasks.
    """

    table: str
    source: str
    average: str
    note: str
    model: str
    intervention: str
    accuracy: Mapping[str, float] = field(default_factory=dict)
    accuracy_drop: Mapping[str, float] = field(default_factory=dict)
    relative_change: tuple[float, ...] = ()
    edges: float | None = None
    edges_share: float | None = None


@cache
def published(file: Path = FILE) -> tuple[PublishedRow, ...]:
    """Every row, in the file's order. Raises MapflowError naming the table of a row that does not
    fit."""
    tables: list[dict[str, Any]] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return tuple(_row(table, row) for table in tables for row in table["rows"])


def published_for(
    task: str, model: str | None = None, table: str | None = None
) -> list[PublishedRow]:
    """The rows that state an accuracy for `task`: all of them, or one model's, or one table's.

    `model` is compared without its organisation: `byminji/LLaVA-NeXT-7B-Video-FT` is
    `LLaVA-NeXT-7B-Video-FT`.
    """
    wanted = model.rsplit("/", 1)[-1] if model else None
    return [
        row
        for row in published()
        if task in row.accuracy and wanted in (None, row.model) and table in (None, row.table)
    ]


def _row(table: Mapping[str, Any], row: Mapping[str, Any]) -> PublishedRow:
    if table["average"] not in AVERAGES:
        raise MapflowError(
            f"published table {table['table']!r}: average {table['average']!r} is none of"
            f" {AVERAGES}"
        )
    about = {name: table[name] for name in ("table", "source", "average", "note")}
    changes = tuple(float(value) for value in row.get("relative_change", ()))
    try:
        return PublishedRow(**{**about, **row, "relative_change": changes})
    except TypeError as error:
        raise MapflowError(f"published table {table['table']!r}: {error}") from None

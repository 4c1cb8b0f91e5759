"""Published results, shown in tables beside measured ones.

published.yaml holds the numbers as printed, with the table that each comes from.
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

    `accuracy` is in percent by task, `accuracy_drop` in percentage points by task, and `average`
    says how both are averaged over subtasks. `relative_change` is the change of the answer's
    probability in percent, per bin of five layers. `edges` counts millions for one head over all
    layers; `edges_share` is in percent of causal attention.
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
    """All rows in the order of the file. Raises MapflowError, naming the table, for a bad row."""
    tables: list[dict[str, Any]] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return tuple(_row(table, row) for table in tables for row in table["rows"])


def published_for(
    task: str, model: str | None = None, table: str | None = None
) -> list[PublishedRow]:
    """The rows with an accuracy for `task`, optionally of one model or one table.

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

"""Rows beside measured ones in a leaderboard: published results, and guessing.

published.yaml holds the numbers as printed, with the table that each comes from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from mapflow.results.contract.errors import MapflowError
from mapflow.results.runs.run import Run
from mapflow.results.tables.formats import Row

FILE = Path(__file__).with_name("published.yaml")
AVERAGES = ("micro", "macro", "unstated")
PAPER_TABLE = "map-the-flow-3"
"""The published table shown beside runs of a model that the paper does not contain."""


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


def published_beside(own: Sequence[Run]) -> list[PublishedRow]:
    """Published rows about the models of these runs; without any, the paper's main table."""
    task = f"mapflow_{own[0].benchmark}"
    ours = [
        row
        for model in dict.fromkeys(run.model for run in own)
        for row in published_for(task, model)
    ]
    return ours or published_for(task, table=PAPER_TABLE)


def leaderboard_row(row: PublishedRow, run: Run) -> Row:
    """The raw values of a published row in a leaderboard beside `run`."""
    value = row.accuracy[f"mapflow_{run.benchmark}"] / 100
    return {
        "benchmark": run.title,
        "model": row.model,
        "intervention": row.intervention,
        "source": row.source,
        "edges": row.edges_share and row.edges_share / 100,
        "average": row.average,
        "micro": None if row.average == "macro" else value,
        "macro": value if row.average == "macro" else None,
        "paper": True,
    }


def guessing_row(own: Sequence[Run]) -> Row:
    """Expected accuracy of uniform guessing over all questions of the runs."""
    options: dict[str, tuple[str, float]] = {}
    for run in own:
        options.update(
            zip(
                run.question_id.tolist(),
                zip(run.task.tolist(), (run.n_right / run.n_options).tolist(), strict=True),
                strict=True,
            )
        )
    by_task: dict[str, list[float]] = {}
    for task, share in options.values():
        by_task.setdefault(task, []).append(share)
    shares = [share for own_shares in by_task.values() for share in own_shares]
    return {
        "benchmark": own[0].title,
        "model": "guessing",
        "intervention": "",
        "micro": float(np.mean(shares)),
        "macro": float(np.mean([np.mean(own_shares) for own_shares in by_task.values()])),
        "n": len(shares),
        "subtasks": {task: float(np.mean(own_shares)) for task, own_shares in by_task.items()},
    }


def sources(rows: Sequence[Row]) -> list[str]:
    """The sources of the published rows among `rows`, with the averages that they print."""
    return list(
        dict.fromkeys(
            f"{row['source']}; average {row['average']}" for row in rows if row.get("paper")
        )
    )

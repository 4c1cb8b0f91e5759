"""What could runs show: differences that they find, and questions that a claim needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mapflow.results.runs.provenance import provenance
from mapflow.results.runs.run import Run
from mapflow.results.statistics import (
    count,
    detectable_difference,
    kish_design_effect,
    power_of_difference,
    power_of_non_inferiority,
    questions_for_non_inferiority,
    questions_needed,
)
from mapflow.results.tables.comparison import ComparedPair
from mapflow.results.tables.formats import Column, Row, Table

FEW_FLIPS = 10
"""Changed videos below which flips and design effect are rough."""


@dataclass(frozen=True)
class Design:
    """A comparison that was made or is planned.

    flips: share of questions that are right in one of the two runs only.
    n, videos: of the comparison; None where only the need is asked.
    per_video: questions per video, for the number of videos needed.
    design_effect: variance by video over that of independent questions.
    note: what a reader should know about the assumptions.
    """

    treatment: str
    baseline: str
    benchmark: str
    flips: float
    design_effect: float
    n: int | None = None
    videos: int | None = None
    per_video: float = 1.0
    note: str = ""


def design_of_pair(
    pair: ComparedPair, flips: float | None = None, design_effect: float | None = None
) -> Design:
    """The design of two runs; `flips` and `design_effect` replace what was measured."""
    found = pair.comparison
    note = ""
    about = f"{found.treatment} on {pair.treatment.title}"
    measured = found.cells.discordance
    if flips is None and measured == 0:
        note = (
            f"{about}: no question flipped, so what a claim needs is unknown; assume a share with"
            " --flips."
        )
    elif flips is None and found.changed_clusters < FEW_FLIPS:
        note = (
            f"{about}: questions of only {count(found.changed_clusters, 'video')} flipped, so the"
            " share of flips and the design effect are rough."
        )
    return Design(
        found.treatment,
        found.baseline,
        pair.treatment.title,
        measured if flips is None else flips,
        design_effect or max(found.design_effect, 1.0),
        found.n,
        found.n_clusters,
        found.n / found.n_clusters,
        note,
    )


def design_of_run(
    run: Run, flips: float, correlation: float, design_effect: float | None = None
) -> Design:
    """A comparison with another run over the questions of `run`, of which `flips` would flip."""
    size = np.ones(run.n, int) if run.cluster is None else np.bincount(run.cluster)
    effect = design_effect or max(kish_design_effect(size, correlation), 1.0)
    return Design(
        "another run",
        run.intervention,
        run.title,
        flips,
        effect,
        run.n,
        len(size),
        run.n / len(size),
    )


def power_table(
    designs: Sequence[Design],
    *,
    margin: float,
    difference: float,
    power: float = 0.8,
    runs: Sequence[Run] = (),
) -> Table:
    """One row per design.

    margin: of non-inferiority; difference: the true one that is to be found. Both are fractions.
    """
    rows = [_row(one, margin, difference, power) for one in designs]
    notes = [_sentence(row) for row in rows]
    notes += [one.note for one in designs if one.note]
    notes += [
        f"Each comparison alone, two-sided at 5 %, with {100 * power:g} % power. Non-inferior: the"
        f" verdict at a margin of {100 * margin:g} points where nothing differs in truth. Several"
        " comparisons made together are corrected (Holm), so each of them shows less.",
        "Flips: share of questions right in one of the two runs only. A true difference flips at"
        " least as many. Design effect: by how much questions that share videos count less; it"
        " stays only if further questions share videos in the same way.",
    ]
    return Table(
        "Power",
        [c for c in _COLUMNS if any(row["n"] is not None for row in rows) or c not in _OF_RUNS],
        rows,
        list(dict.fromkeys(notes)),
        provenance(runs),
        compact=_COMPACT,
    )


def _row(one: Design, margin: float, difference: float, power: float) -> Row:
    effect, flips = one.design_effect, one.flips
    found = shown = detectable = None
    if one.n is not None:
        found = power_of_difference(one.n, max(flips, difference), difference, design_effect=effect)
        detectable = detectable_difference(one.n, flips, power=power, design_effect=effect)
    for_difference = for_verdict = None
    if flips:
        for_difference = questions_needed(
            max(flips, difference), difference, power=power, design_effect=effect
        )
        for_verdict = questions_for_non_inferiority(
            flips, 0.0, margin, power=power, design_effect=effect
        )
        if one.n is not None:
            shown = power_of_non_inferiority(one.n, flips, 0.0, margin, design_effect=effect)
    return {
        "benchmark": one.benchmark,
        "treatment": one.treatment,
        "baseline": one.baseline,
        "n": one.n,
        "videos": one.videos,
        "flips": flips,
        "design_effect": effect,
        "power": power,
        "margin": margin,
        "difference": difference,
        "detectable": detectable,
        "power_difference": found,
        "power_non_inferior": shown,
        **_needed("difference", for_difference, one.per_video),
        **_needed("non_inferior", for_verdict, one.per_video),
    }


def _needed(name: str, questions: float | None, per_video: float) -> Row:
    if questions is None:
        return {f"questions_{name}": None, f"videos_{name}": None}
    return {
        f"questions_{name}": math.ceil(questions),
        f"videos_{name}": math.ceil(questions / per_video),
    }


def _sentence(row: Row) -> str:
    about = f"{row['treatment']} against {row['baseline']}"
    about += f" on {row['benchmark']}" if row["benchmark"] else ""
    parts = []
    if row["n"] is not None:
        parts.append(
            f"no difference is found in {count(row['n'], 'question')} with"
            f" {100 * row['power']:g} % power"
            if row["detectable"] is None
            else f"a true difference of {100 * row['detectable']:.1f} points is found in"
            f" {count(row['n'], 'question')} of {count(row['videos'], 'video')} with"
            f" {100 * row['power']:g} % power"
        )
    for name, said in (
        ("difference", f"a difference of {100 * row['difference']:g}"),
        ("non_inferior", f"non-inferiority at {100 * row['margin']:g}"),
    ):
        if row[f"questions_{name}"] is not None:
            parts.append(
                f"{said} points needs {count(row[f'questions_{name}'], 'question')} of"
                f" {count(row[f'videos_{name}'], 'video')}"
            )
    return f"{about}: {'; '.join(parts)}."


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


_OF_RUNS: tuple[Column[Row], ...] = (
    Column("n", lambda r: _count(r["n"])),
    Column("videos", lambda r: _count(r["videos"])),
    Column("detectable difference", lambda r: _percent(r["detectable"])),
    Column("power for difference %", lambda r: _percent(r["power_difference"])),
    Column("power for non-inferior %", lambda r: _percent(r["power_non_inferior"])),
)
_COLUMNS: tuple[Column[Row], ...] = (
    Column("treatment", lambda r: r["treatment"], right=False),
    Column("baseline", lambda r: r["baseline"], right=False),
    Column("benchmark", lambda r: r["benchmark"] or "–", right=False),
    *_OF_RUNS[:2],
    Column("flips %", lambda r: _percent(r["flips"])),
    Column("design effect", lambda r: f"{r['design_effect']:.2f}"),
    *_OF_RUNS[2:],
    Column("questions for difference", lambda r: _count(r["questions_difference"])),
    Column("videos for difference", lambda r: _count(r["videos_difference"])),
    Column("questions for non-inferior", lambda r: _count(r["questions_non_inferior"])),
    Column("videos for non-inferior", lambda r: _count(r["videos_non_inferior"])),
)
_COMPACT = (
    "treatment", "baseline", "benchmark", "n", "videos", "detectable difference",
    "questions for difference", "questions for non-inferior",
)  # fmt: skip

"""Does an intervention cost one model more than another? Differences of differences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mapflow.results.contract.errors import MapflowError
from mapflow.results.runs.provenance import disagreements, other_model, provenance
from mapflow.results.runs.run import Run, incomplete_note, model_names
from mapflow.results.statistics import (
    FEW_CLUSTERS,
    count,
    few_videos,
    holm,
    interaction,
    points,
)
from mapflow.results.tables.cells import ALPHA, p_text
from mapflow.results.tables.comparison import either_failed, paired
from mapflow.results.tables.formats import Column, Marks, Row, Table


def interaction_tables(
    folders: Sequence[Sequence[Run]], baseline: str | None = None, *, intersect: bool = False
) -> list[Table]:
    """One table per benchmark, one row per further model and intervention of both models.

    folders: runs of one model each; those of the same model are put together, and the other models
        are compared with the first.
    baseline: the intervention that differences are taken from (default: the first model's first).

    All p-values are corrected as one family. Raises MapflowError for fewer than two models, without
    two shared interventions on a shared benchmark, and for different questions, unless `intersect`.
    """
    models: list[list[Run]] = []
    for runs in folders:
        same = [own for own in models if _of_one_model(own[0], runs[0])]
        (same[0].extend if same else models.append)(list(runs))
    if len(models) < 2:
        raise MapflowError(
            "an interaction needs two models, and these runs are of one: name folders of another"
            " one too, or compare its interventions without --interaction"
        )
    first, *others = models
    wanted = baseline or first[0].intervention
    names = model_names([own[0] for own in models])
    found: dict[str, list[tuple[Row, list[Run], list[str]]]] = {}
    for other, name in zip(others, names[1:], strict=True):
        ours, theirs = _by_place(first), _by_place(other)
        for benchmark, intervention in ours:
            four = [(benchmark, wanted), (benchmark, intervention)]
            if intervention == wanted or not all(one in ours and one in theirs for one in four):
                continue
            runs = [own[one] for own in (ours, theirs) for one in four]
            row, notes = _row(runs, (names[0], name), intersect)
            found.setdefault(benchmark, []).append((row, runs, notes))
    if not found:
        held = "; ".join(
            f"{name} has {', '.join(dict.fromkeys(_place_text(run) for run in own))}"
            for name, own in zip(names, models, strict=True)
        )
        raise MapflowError(
            f"no two models share {wanted!r} and another intervention on one benchmark: {held}"
        )
    every = [row for own in found.values() for row, *_ in own]
    corrected = iter(holm(np.array([row["p"] for row in every], dtype=float)).tolist())
    tables = []
    for own in found.values():
        rows = [{**row, "p_holm": next(corrected)} for row, *_ in own]
        tables.append(_table(rows, [part for _, *part in own], len(every)))
    return tables


def _of_one_model(one: Run, other: Run) -> bool:
    """Runs that do not say what model they are of belong to one model only in one folder."""
    known = all((run.manifest.get("identity") or {}).get("model") for run in (one, other))
    return one.source == other.source or (known and not other_model(one, other))


def _by_place(runs: Sequence[Run]) -> dict[tuple[str, str], Run]:
    """(benchmark, intervention) → run."""
    found: dict[tuple[str, str], Run] = {}
    for run in runs:
        if found.setdefault((run.benchmark, run.intervention), run) is not run:
            raise MapflowError(
                f"{run.intervention!r} on {run.title} is there more than once; name each model's"
                " runs once"
            )
    return found


def _place_text(run: Run) -> str:
    return f"{run.intervention} on {run.title}"


def _row(runs: Sequence[Run], models: tuple[str, str], intersect: bool) -> tuple[Row, list[str]]:
    """The raw values of one interaction: of each model its baseline, then its treatment."""
    labels = [
        f"{model} {run.intervention}"
        for model, run in zip(np.repeat(models, 2).tolist(), runs, strict=True)
    ]
    together = paired(runs, labels, intersect)
    cluster = together.cluster if together.clustered else None
    first, second = together.correct[:2], together.correct[2:]
    interval, test = interaction(first, second, cluster)
    own = [model[1].mean() - model[0].mean() for model in (first, second)]
    about, notes = f"{models[1]} and {models[0]}, {runs[1].intervention}", []
    if failed := len(either_failed(runs, labels, intersect)):
        notes.append(f"{about}: {count(failed, 'question')} could not be asked; left out.")
    if any(together.left_out):
        notes.append(f"{about}: only the {count(together.n, 'question')} of all four runs count.")
    if cluster is not None and together.n_clusters < FEW_CLUSTERS:
        notes.append(few_videos(together.n_clusters))
    warnings = [warning for model in (runs[:2], runs[2:]) for warning in disagreements(*model)]
    warnings += disagreements(runs[0], runs[2])
    notes += [f"{about}: {warning}" for warning in dict.fromkeys(warnings)]
    row: Row = {
        "benchmark": runs[1].title,
        "intervention": runs[1].intervention,
        "baseline": runs[0].intervention,
        "model": models[1],
        "reference": models[0],
        "difference_model": float(own[1]),
        "difference_reference": float(own[0]),
        "interaction": interval.estimate,
        "low": interval.low,
        "high": interval.high,
        "p": test.p_value,
        "n": together.n,
        "videos": together.n_clusters,
    }
    return row, notes


def _sentence(row: Row) -> str:
    said = f"costs {row['model']} {'less' if row['interaction'] > 0 else 'more'} than"
    if row["p_holm"] >= ALPHA:
        said = f"is not shown to cost {row['model']} more or less than"
    return (
        f"{row['intervention']} {said} {row['reference']} on {row['benchmark']}:"
        f" {points(row['difference_model'])} and {points(row['difference_reference'])} points,"
        f" interaction {points(row['interaction'])}, 95 % CI"
        f" {points(row['low'])}…{points(row['high'])}."
    )


def _table(rows: Sequence[Row], parts: Sequence[Sequence], family: int) -> Table:
    runs = list({id(run): run for own, _ in parts for run in own}.values())
    notes = [*map(_sentence, rows), *(note for _, own in parts for note in own)]
    notes += incomplete_note(runs)
    notes += [
        "Interaction: the model's difference to its own baseline minus the reference model's, in"
        " points, paired by question and clustered by video; negative where the intervention costs"
        " the model more. Accuracies near 0 or 100 % leave less room for a difference.",
        "p (Holm) is that of the one interaction: nothing is corrected."
        if family == 1
        else f"p (Holm) is corrected for the family of all {family} interactions.",
    ]
    open_rows = frozenset(k for k, row in enumerate(rows) if row["p_holm"] > ALPHA)
    return Table(
        f"Interactions of model and intervention on {rows[0]['benchmark']}",
        _COLUMNS,
        rows,
        list(dict.fromkeys(notes)),
        provenance(runs),
        kind="interactions",
        more=[Column("videos", lambda r: f"{r['videos']:,}")],
        compact=[column.head for column in _COLUMNS if column.head not in ("benchmark", "n", "p")],
        marks=[Marks("interaction", frozenset(), open_rows)],
        legend=("", "†: not significant (p ≥ 0.05, paired by question, clustered by video, Holm)."),
    )


_COLUMNS: tuple[Column[Row], ...] = (
    Column("intervention", lambda r: r["intervention"], right=False),
    Column("baseline", lambda r: r["baseline"], right=False),
    Column("model", lambda r: r["model"], right=False),
    Column("reference", lambda r: r["reference"], right=False),
    Column("n", lambda r: f"{r['n']:,}"),
    Column("model's difference", lambda r: points(r["difference_model"])),
    Column("reference's difference", lambda r: points(r["difference_reference"])),
    Column("interaction", lambda r: points(r["interaction"])),
    Column("95 % CI", lambda r: f"{points(r['low'])}…{points(r['high'])}"),
    Column("p", lambda r: p_text(r["p"], "")),
    Column("p (Holm)", lambda r: p_text(r["p_holm"], "")),
)

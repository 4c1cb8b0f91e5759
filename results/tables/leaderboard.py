"""The leaderboard: models × interventions × benchmarks, with statistical ties.

Runs that share a letter do not differ significantly (paired tests, Holm over all pairs of runs of a
benchmark). Published rows are printed as published, and random guessing has its own row.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from jaxtyping import Bool

from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import coded
from mapflow.results.runs.provenance import disagreements, provenance, uncut_note
from mapflow.results.runs.run import Run, labels, left_out_notes, model_names, share_text
from mapflow.results.statistics import (
    FEW_CLUSTERS,
    accuracy,
    chance_level_test,
    clustered_standard_error,
    count,
    few_videos,
    holm,
    macro_accuracy,
    paired_difference,
)
from mapflow.results.tables.cells import p_text
from mapflow.results.tables.comparison import paired
from mapflow.results.tables.formats import Column, Row, Table
from mapflow.results.tables.published import PublishedRow, published_for
from mapflow.results.tables.summary import of_all, percent

PAPER_TABLE = "map-the-flow-3"
"""The published table shown beside runs of a model that the paper does not contain."""


def leaderboards(runs: Sequence[Run], *, alpha: float = 0.05) -> list[Table]:
    """One table per benchmark, in order of appearance."""
    by_benchmark: dict[str, list[Run]] = {}
    for run in runs:
        by_benchmark.setdefault(run.benchmark, []).append(run)
    return [leaderboard(own, alpha=alpha) for own in by_benchmark.values()]


def leaderboard(runs: Sequence[Run], *, alpha: float = 0.05) -> Table:
    """One row per run of one benchmark, best first; then published rows and guessing.

    Runs that answer only a part of the benchmark come last, those with most answers first; they are
    not ranked.

    Raises MapflowError for a run in which every question failed.
    """
    complete = sorted((run for run in runs if run.complete), key=_micro, reverse=True)
    partial = [run for run in runs if not run.complete]
    partial.sort(key=lambda run: (run.n, _micro(run)), reverse=True)
    own = [*complete, *partial]
    models = model_names(own)
    letters, notes = tie_letters(complete or partial, alpha)
    letters += [""] * (len(own) - len(letters))
    rows = [_row(*each) for each in zip(own, models, letters, strict=True)]
    rows[len(complete) : len(complete)] = [
        *(_published_row(row, own[0]) for row in _published(own)),
        *([_guessing(own)] if (own[0].n_options > 1).all() else []),
    ]
    notes += [
        f"{model} {run.intervention} is incomplete: {share_text(run)}; it is not ranked."
        for run, model in zip(own, models, strict=True)
        if not run.complete
    ]
    notes += [
        f"{model} {run.intervention}: {said}"
        for run, model in zip(own, models, strict=True)
        if (said := uncut_note(run.manifest))
    ]
    notes += left_out_notes(own)
    notes += _between_runs(own)
    notes += list(dict.fromkeys(_few_videos(run) for run in own if _few_videos(run)))
    notes += [
        "Runs of a benchmark that share a letter do not differ significantly in micro accuracy,"
        f" by which runs are ordered (paired, Holm, {alpha:.0%}).",
        "Accuracy in percent: micro over questions with its 95 % interval (Wilson, by video),"
        " macro over subtasks.",
        *(f"Paper rows, neither tested nor ranked: {source}." for source in _sources(rows)),
        "p (chance): against guessing, two-sided, exact, each run alone; significantly below chance"
        " mostly means a lost answer format.",
    ]
    title = f"Leaderboard: {own[0].title}"
    return Table(title, _COLUMNS, rows, notes, provenance(runs), compact=_COMPACT)


def tie_letters(runs: Sequence[Run], alpha: float = 0.05) -> tuple[list[str], list[str]]:
    """The letters of every run, and sentences about pairs that could not be compared.

    `runs` are sorted, best first. Two runs are compared over the questions that both answered; runs
    without a shared question count as tied.
    """
    names, said = labels(runs), []
    p_values = np.ones((len(runs), len(runs)))
    pairs = list(combinations(range(len(runs)), 2))
    for i, j in pairs:
        both, both_names = (runs[i], runs[j]), (names[i], names[j])
        try:
            together = paired(both, both_names, intersect=True)
            p_values[i, j] = _p_value(
                together.correct, together.cluster if together.clustered else None
            )
        except MapflowError as error:
            said.append(f"{names[i]} and {names[j]} cannot be compared: {error}.")
            continue
        if any(together.left_out):
            said.append(
                f"{names[i]} and {names[j]} are compared over the"
                f" {count(together.n, 'question')} they share."
            )
    if pairs:
        index = tuple(np.array(pairs).T)
        p_values[index] = holm(p_values[index])
    differ = np.minimum(p_values, p_values.T) <= alpha
    return letter_display(differ), said


def letter_display(differ: Bool[np.ndarray, "runs runs"]) -> list[str]:
    """Compact letter display: two runs share a letter if and only if they do not differ.

    Source: Piepho (2004), the insert-and-absorb algorithm.
    """
    n = len(differ)
    groups = [frozenset(range(n))] if n else []
    for i, j in combinations(range(n), 2):
        if differ[i, j]:
            split = [
                part
                for group in groups
                for part in ([group - {i}, group - {j}] if {i, j} <= group else [group])
            ]
            groups = [
                group for group in dict.fromkeys(split) if not any(group < other for other in split)
            ]
    groups.sort(key=sorted)
    return [
        "".join(_letter(k) for k, group in enumerate(groups) if run in group) for run in range(n)
    ]


def _letter(k: int) -> str:
    return chr(ord("a") + k) if k < 26 else f"({k + 1})"


def _p_value(correct: Bool[np.ndarray, "2 n"], cluster: np.ndarray | None) -> float:
    """The test of every comparison."""
    return paired_difference(correct[1].astype(int) - correct[0], cluster).p_value()


def _between_runs(runs: Sequence[Run]) -> list[str]:
    """Warnings about every pair of runs that were asked differently, one line per run."""
    models = model_names(runs)
    names = [f"{model} {run.intervention}" for model, run in zip(models, runs, strict=True)]
    if len(set(names)) < len(names):
        names = labels(runs)
    found: dict[tuple[int, str], list[str]] = {}
    for i, j in combinations(range(len(runs)), 2):
        for warning in disagreements(runs[i], runs[j]):
            found.setdefault((i, warning), []).append(names[j])
    return [
        f"{names[i]} and {', '.join(others)}: {warning}" for (i, warning), others in found.items()
    ]


def _few_videos(run: Run) -> str:
    """A note if the run's intervals rest on few videos, each with several questions."""
    videos = 0 if run.cluster is None else len(np.unique(run.cluster))
    return few_videos(videos) if 0 < videos < FEW_CLUSTERS else ""


def _sources(rows: Sequence[Row]) -> list[str]:
    return list(
        dict.fromkeys(
            f"{row['source']}; average {row['average']}" for row in rows if row.get("paper")
        )
    )


def _micro(run: Run) -> float:
    if not run.n:
        raise MapflowError(
            f"{str(run.source)!r}: none of the {count(run.errors, 'question')} could be asked under"
            f" {run.intervention!r}"
        )
    return float(run.correct[~run.failed].mean())


def _row(run: Run, model: str, ties: str) -> Row:
    kept = ~run.failed
    correct, options, cluster = run.correct[kept], run.n_options[kept], run.cluster
    tasks, codes = coded(run.task[kept])
    codes = np.array(codes)
    micro = accuracy(correct, cluster)
    macro = macro_accuracy(correct, codes, cluster) if len(tasks) > 1 else micro
    choice = bool((options > 1).all())
    chance = chance_level_test(correct, options, run.n_right[kept]) if choice else None
    return {
        "benchmark": run.title,
        "model": model,
        "intervention": run.intervention,
        "source": run.source.name,
        "protocol": run.protocol,
        "edges": run.edges_share,
        "micro": micro.estimate,
        "low": micro.low,
        "high": micro.high,
        "standard_error": clustered_standard_error(correct, cluster),
        "macro": macro.estimate,
        "macro_low": macro.low,
        "macro_high": macro.high,
        "ties": ties,
        "chance": chance and chance.chance,
        "p_chance": chance and chance.p_two_sided,
        "invalid": None if run.valid is None else float((~run.valid[kept]).mean()),
        "n": run.n,
        "errors": run.errors,
        "of": run.total,
        "complete": run.complete,
    }


def _published(own: Sequence[Run]) -> list[PublishedRow]:
    """Published rows about the models of these runs; without any, the paper's main table."""
    task = f"mapflow_{own[0].benchmark}"
    ours = [
        row
        for model in dict.fromkeys(run.model for run in own)
        for row in published_for(task, model)
    ]
    return ours or published_for(task, table=PAPER_TABLE)


def _published_row(row: PublishedRow, run: Run) -> Row:
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


def _guessing(own: Sequence[Run]) -> Row:
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
    }


def _with_interval(row: Row, name: str, low: str, high: str) -> str:
    text = percent(row.get(name))
    return (
        f"{text} [{percent(row[low])}–{percent(row[high])}]" if row.get(low) is not None else text
    )


def _mark(row: Row) -> str:
    """What sets a row apart from the ranked runs."""
    return " (paper)" if row.get("paper") else "" if row.get("complete", True) else " (incomplete)"


_COLUMNS: tuple[Column[Row], ...] = (
    Column("benchmark", lambda r: r["benchmark"], right=False),
    Column("model", lambda r: r["model"] + _mark(r), right=False),
    Column("intervention", lambda r: r["intervention"], right=False),
    Column("edges %", lambda r: percent(r.get("edges"))),
    Column("micro [95 % CI]", lambda r: _with_interval(r, "micro", "low", "high")),
    Column("macro [95 % CI]", lambda r: _with_interval(r, "macro", "macro_low", "macro_high")),
    Column("ties", lambda r: r.get("ties", ""), right=False),
    Column("p (chance)", lambda r: "–" if r.get("p_chance") is None else p_text(r["p_chance"], "")),
    Column("invalid %", lambda r: percent(r.get("invalid"))),
    Column("n", lambda r: of_all(r["n"], r.get("of")) if "n" in r else "–"),
    Column("errors", lambda r: f"{r['errors']:,}" if "errors" in r else "–"),
)

_COMPACT = (
    "benchmark", "model", "intervention", "edges %", "micro [95 % CI]", "macro [95 % CI]", "ties"
)  # fmt: skip

"""The leaderboard: models × interventions × benchmarks, with statistical ties.

Runs that share a letter do not differ significantly (paired tests, Holm over all pairs of runs of a
benchmark). Several seeds of a random intervention are one row, tested with the variance between
them. Published rows are printed as published, and random guessing has its own row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from jaxtyping import Bool

from mapflow.results.contract.errors import MapflowError
from mapflow.results.runs.provenance import disagreements_between, provenance, uncut_note
from mapflow.results.runs.run import Run, labels, left_out_notes, model_names, share_text
from mapflow.results.statistics import (
    FEW_CLUSTERS,
    PairedRuns,
    accuracy,
    chance_level_test,
    clustered_standard_error,
    count,
    few_videos,
    holm,
    letter_display,
    macro_accuracy,
    macro_weight,
    paired_difference,
    seeds_accuracy,
    seeds_difference,
)
from mapflow.results.tables.ablation import condition_of
from mapflow.results.tables.cells import p_text
from mapflow.results.tables.comparison import paired
from mapflow.results.tables.formats import Column, Marks, Row, Table
from mapflow.results.tables.published import (
    guessing_row,
    leaderboard_row,
    published_beside,
    sources,
)
from mapflow.results.tables.subtasks import accuracy_columns, spread_subtasks
from mapflow.results.tables.summary import of_all, percent

AVERAGES = ("micro", "macro")
"""What runs may be ranked by."""


@dataclass(frozen=True)
class _Entry:
    """What has one row: a run, or several seeds of one random intervention."""

    runs: tuple[Run, ...]
    model: str

    @property
    def first(self) -> Run:
        return self.runs[0]

    @property
    def intervention(self) -> str:
        return condition_of(self.first) if len(self.runs) > 1 else self.first.intervention

    @property
    def name(self) -> str:
        return f"{self.model} {self.intervention}"


def leaderboards(
    runs: Sequence[Run], *, alpha: float = 0.05, rank_by: str = "micro", each_seed: bool = False
) -> list[Table]:
    """One table per benchmark, in order of appearance."""
    by_benchmark: dict[str, list[Run]] = {}
    for run in runs:
        by_benchmark.setdefault(run.benchmark, []).append(run)
    return [
        leaderboard(own, alpha=alpha, rank_by=rank_by, each_seed=each_seed)
        for own in by_benchmark.values()
    ]


def leaderboard(
    runs: Sequence[Run], *, alpha: float = 0.05, rank_by: str = "micro", each_seed: bool = False
) -> Table:
    """One row per run of one benchmark, best first; then published rows and guessing.

    Seeds of one random intervention share a row, unless `each_seed`. `rank_by` is the average that
    runs are ordered and tested by. Runs that answer only a part of the benchmark come last, those
    with most answers first; they are not ranked.

    Raises MapflowError for a run in which every question failed, and for an unknown average.
    """
    if rank_by not in AVERAGES:
        raise MapflowError(f"cannot rank by {rank_by!r}: use one of {', '.join(AVERAGES)}")
    entries = _entries(runs, each_seed)
    counted = {id(entry): _row(entry) for entry in entries}

    def value(entry: _Entry) -> float:
        return counted[id(entry)][rank_by]

    complete = sorted((one for one in entries if one.first.complete), key=value, reverse=True)
    partial = [one for one in entries if not one.first.complete]
    partial.sort(key=lambda one: (counted[id(one)]["n"], value(one)), reverse=True)
    ranked, own = complete or partial, [*complete, *partial]
    letters, notes, tested = _tie_letters(ranked, alpha, rank_by)
    letters += [""] * (len(own) - len(letters))
    rows: list[Row] = [
        {**counted[id(one)], "ties": tied} for one, tied in zip(own, letters, strict=True)
    ]
    every = [run for one in own for run in one.runs]
    beside = [leaderboard_row(row, every[0]) for row in published_beside(every)]
    guessing = [guessing_row(every)] if all((run.n_options > 1).all() for run in every) else []
    rows = spread_subtasks([*rows[: len(complete)], *beside, *guessing, *rows[len(complete) :]])
    notes += _remarks(own, ranked=bool(complete))
    notes += [
        f"Runs of a benchmark that share a letter do not differ significantly in {rank_by}"
        f" accuracy, by which runs are ordered (paired, Holm, {alpha:.0%}).",
        "Accuracy in percent: micro over questions with its 95 % interval (Wilson, by video),"
        " macro over subtasks.",
        *(f"Paper rows, neither tested nor ranked: {source}." for source in sources(rows)),
        "p (chance): against guessing, two-sided, exact, each run alone; significantly below chance"
        " mostly means a lost answer format.",
    ]
    start = 0 if complete else len(beside) + len(guessing)
    best = {start + k for k, one in enumerate(ranked) if value(one) == value(ranked[0])}
    tied = {start + k for k in np.flatnonzero(tested).tolist() if set(letters[k]) & set(letters[0])}
    asked = {frozenset(one.first.question_id.tolist()) for one in ranked}
    columns = _columns(rows)
    blocks = (len(complete), len(beside), len(guessing))
    return Table(
        f"Leaderboard: {every[0].title}",
        columns,
        rows,
        notes,
        provenance(runs),
        more=[*(one for one in _OF_SEEDS if one not in columns), *accuracy_columns(rows)],
        compact=_COMPACT,
        marks=[Marks(f"{rank_by} [95 % CI]", frozenset(best), frozenset(tied - best))]
        if len(ranked) > 1 and (complete or len(asked) == 1)
        else [],
        legend=(
            "Bold: best.",
            f"†: not significantly different from the best (paired, Holm, {alpha:.0%}).",
        ),
        apart=sorted({sum(blocks[:k]) for k in (1, 2, 3)} - {0, len(rows)}),
    )


def _remarks(entries: Sequence[_Entry], *, ranked: bool) -> list[str]:
    """What a reader should know of these rows; ranked: whether any run is complete."""
    runs = [run for one in entries for run in one.runs]
    unranked = "; it is not ranked." if ranked else "."
    several = [one for one in entries if len(one.runs) > 1]
    return [
        *(
            f"{one.name} is incomplete: {share_text(one.first)}{unranked}"
            for one in entries
            if not one.first.complete
        ),
        *(f"{one.name}: {said}" for one in entries if (said := uncut_note(one.first.manifest))),
        *left_out_notes(runs),
        *disagreements_between(runs),
        *dict.fromkeys(filter(None, map(_few_videos, runs))),
        *(
            f"{one.name}: {len(one.runs)} seeds ({', '.join(str(run.seed) for run in one.runs)}) in"
            " one row; spread is the standard deviation of their accuracies, and the interval"
            " allows for it."
            for one in several
        ),
        *(
            f"{one.name}: two seeds have one degree of freedom between them, so its interval and"
            " its ties are wide; five seeds show far more."
            for one in several
            if len(one.runs) == 2
        ),
    ]


def _entries(runs: Sequence[Run], each_seed: bool) -> list[_Entry]:
    """Seeds of one model, protocol and set of questions are one entry, if no seed is repeated."""
    groups: dict[tuple, list[tuple[Run, str]]] = {}
    for k, (run, model) in enumerate(zip(runs, model_names(runs), strict=True)):
        asked = hash(frozenset(run.question_id.tolist()))
        seeds = (model, condition_of(run), run.protocol, run.complete, asked)
        alone = each_seed or run.seed is None
        groups.setdefault((k,) if alone else seeds, []).append((run, model))
    entries: list[_Entry] = []
    for own in groups.values():
        together, model = tuple(run for run, _ in own), own[0][1]
        repeated = len({run.seed for run in together}) < len(together)
        parts = [(run,) for run in together] if repeated else [together]
        entries += [_Entry(part, model) for part in parts]
    return entries


def _tie_letters(
    entries: Sequence[_Entry], alpha: float, rank_by: str
) -> tuple[list[str], list[str], Bool[np.ndarray, " entries"]]:
    """The letters of every entry, sentences about pairs, and which were tested against the best.

    `entries` are sorted, best first. Two are compared over the questions that both answered; those
    without a shared question count as tied.
    """
    single = labels([entry.first for entry in entries])
    names = [
        one.name if len(one.runs) > 1 else name for one, name in zip(entries, single, strict=True)
    ]
    said: list[str] = []
    p_values = np.ones((len(entries), len(entries)))
    tested = np.eye(len(entries), dtype=bool)
    pairs = list(combinations(range(len(entries)), 2))
    for i, j in pairs:
        runs = [*entries[i].runs, *entries[j].runs]
        try:
            together = paired(runs, labels(runs), intersect=True)
        except MapflowError as error:
            said.append(f"{names[i]} and {names[j]} cannot be compared: {error}.")
            continue
        p_values[i, j] = _p_value(together, len(entries[i].runs), rank_by)
        tested[i, j] = True
        if any(together.left_out):
            said.append(
                f"{names[i]} and {names[j]} are compared over the"
                f" {count(together.n, 'question')} they share."
            )
    if pairs:
        index = tuple(np.array(pairs).T)
        p_values[index] = holm(p_values[index])
    differ = np.minimum(p_values, p_values.T) <= alpha
    return letter_display(differ), said, tested[0]


def _p_value(together: PairedRuns, seeds: int, rank_by: str) -> float:
    """The test of every comparison, of the first `seeds` runs with the others."""
    cluster = together.cluster if together.clustered else None
    first, second = together.correct[:seeds], together.correct[seeds:]
    weight = None
    if rank_by == "macro" and together.task is not None:
        weight = macro_weight(together.task)
    if len(together.correct) > 2:
        return seeds_difference(first, second, cluster, weight).p_value()
    return paired_difference(second[0].astype(int) - first[0], cluster, weight).p_value()


def _few_videos(run: Run) -> str:
    """A note if the run's intervals rest on few videos, each with several questions."""
    videos = 0 if run.cluster is None else len(np.unique(run.cluster))
    if videos == 1 and run.n > 1:
        about = f"{run.source.name}: all {run.n:,} questions are about one video"
        return f"{about}, which tells nothing about others: no interval, no significant difference."
    return few_videos(videos) if 0 < videos < FEW_CLUSTERS else ""


def _row(entry: _Entry) -> Row:
    """The raw values of a run, or of the questions that all seeds answered."""
    for run in entry.runs:
        if not run.n:
            raise MapflowError(
                f"{str(run.source)!r}: none of the {count(run.errors, 'question')} could be asked"
                f" under {run.intervention!r}"
            )
    run, several = entry.first, len(entry.runs) > 1
    together = paired(entry.runs, [one.intervention for one in entry.runs], intersect=True)
    cluster, task = together.cluster if together.clustered else None, together.task
    seeds, spread = together.correct, None
    macro_limits: tuple[float | None, float | None] = (None, None)
    chance = None
    if several:
        micro = seeds_accuracy(seeds, cluster)
        spread = float(seeds.mean(axis=1).std(ddof=1))
    else:
        micro = accuracy(seeds[0], cluster)
        kept = ~run.failed
        if (run.n_options[kept] > 1).all():
            chance = chance_level_test(run.correct[kept], run.n_options[kept], run.n_right[kept])
    by_task = _by_task(together)
    if len(by_task) < 2:
        macro, macro_limits = micro.estimate, (micro.low, micro.high)
    else:
        macro = float(np.mean(list(by_task.values())))
        if not several and task is not None:
            found = macro_accuracy(seeds[0], task, cluster)
            macro, macro_limits = found.estimate, (found.low, found.high)
    limits: tuple[float | None, float | None] = (micro.low, micro.high)
    if together.clustered and together.n_clusters == 1:  # tells nothing about other videos
        limits = macro_limits = (None, None)
    error = None if several else clustered_standard_error(seeds[0], cluster)
    frames = sorted({int(one) for part in entry.runs for one in part.n_frames[~part.failed] if one})
    invalid = [
        float((~one.valid[~one.failed]).mean()) for one in entry.runs if one.valid is not None
    ]
    return {
        "benchmark": run.title,
        "model": entry.model,
        "intervention": entry.intervention,
        "source": run.source.name,
        "protocol": run.protocol,
        "frames": frames,
        "seeds": [one.seed for one in entry.runs if one.seed is not None],
        "edges": run.edges_share,
        "micro": micro.estimate,
        "low": limits[0],
        "high": limits[1],
        "standard_error": error,
        "macro": macro,
        "macro_low": macro_limits[0],
        "macro_high": macro_limits[1],
        "between_seeds": spread,
        "ties": "",
        "chance": chance and chance.chance,
        "p_chance": chance and chance.p_two_sided,
        "invalid": float(np.mean(invalid)) if invalid else None,
        "n": together.n,
        "errors": sum(one.errors for one in entry.runs),
        "of": run.total,
        "complete": run.complete,
        "subtasks": by_task,
    }


def _by_task(together: PairedRuns) -> dict[str, float]:
    """Subtask → accuracy, the mean over seeds."""
    if together.task is None:
        return {}
    return {
        name: float(together.correct[:, together.task == code].mean())
        for code, name in enumerate(together.task_names)
    }


def _with_interval(row: Row, name: str, low: str, high: str) -> str:
    text = percent(row.get(name))
    limits = "" if row.get(low) is None else f" [{percent(row[low])}–{percent(row[high])}]"
    return text + limits


def _mark(row: Row) -> str:
    """What sets a row apart from the ranked runs."""
    return " (paper)" if row.get("paper") else "" if row.get("complete", True) else " (incomplete)"


def _frames(row: Row) -> str:
    found = row.get("frames") or []
    return f"{found[0]}–{found[-1]}" if len(found) > 1 else "".join(map(str, found)) or "–"


def _columns(rows: Sequence[Row]) -> list[Column[Row]]:
    """Without the columns of seeds where no row has several."""
    if any(row.get("between_seeds") is not None for row in rows):
        return list(_COLUMNS)
    return [column for column in _COLUMNS if column not in _OF_SEEDS]


def with_subtasks(table: Table) -> Table:
    """The leaderboard with one column of accuracies per subtask, after the macro average."""
    own = accuracy_columns(table.rows)
    at = next(k for k, one in enumerate(table.columns) if one.head.startswith("macro")) + 1
    columns = [*table.columns[:at], *own, *table.columns[at:]]
    return replace(table, columns=columns, compact=[*_COMPACT, *(one.head for one in own)])


_OF_SEEDS: tuple[Column[Row], ...] = (
    Column("seeds", lambda r: str(len(r["seeds"])) if r.get("seeds") else "–"),
    Column("spread", lambda r: percent(r.get("between_seeds"))),
)
_COLUMNS: tuple[Column[Row], ...] = (
    Column("benchmark", lambda r: r["benchmark"], right=False),
    Column("model", lambda r: r["model"] + _mark(r), right=False),
    Column("intervention", lambda r: r["intervention"], right=False),
    Column("protocol", lambda r: r.get("protocol") or "–", right=False),
    Column("frames", _frames),
    Column("edges %", lambda r: percent(r.get("edges"))),
    _OF_SEEDS[0],
    Column("micro [95 % CI]", lambda r: _with_interval(r, "micro", "low", "high")),
    _OF_SEEDS[1],
    Column("macro [95 % CI]", lambda r: _with_interval(r, "macro", "macro_low", "macro_high")),
    Column("ties", lambda r: r.get("ties", ""), right=False),
    Column("p (chance)", lambda r: "–" if r.get("p_chance") is None else p_text(r["p_chance"], "")),
    Column("invalid %", lambda r: percent(r.get("invalid"))),
    Column("n", lambda r: of_all(r["n"], r.get("of")) if "n" in r else "–"),
    Column("errors", lambda r: f"{r['errors']:,}" if "errors" in r else "–"),
)
_COMPACT = (
    "benchmark", "model", "intervention", "edges %", "micro [95 % CI]", "macro [95 % CI]", "ties",
)  # fmt: skip

"""Aligns runs by question id and groups questions by video; every comparison starts here.

Only this module reads raw columns and checks them: for duplicate ids, missing outcomes, gold
answers that disagree, and runs over different questions. Its results have one row per run and one
column per question, sorted by question id, with integer codes for videos and subtasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import check_id, coded
from mapflow.results.contract.visible_text import quoted
from mapflow.results.statistics.estimates import count

Column = Sequence[Any] | np.ndarray


@dataclass(frozen=True)
class RunOutcomes:
    """One run as columns of equal length, in any order.

    correct: 0/1 or booleans.
    video_id: the video of each question; without it, every question is its own cluster.
    task: the subtask; gold: the right answer in the run's records.
    """

    name: str
    question_id: Column
    correct: Column
    video_id: Column | None = None
    task: Column | None = None
    gold: Column | None = None


@dataclass(frozen=True)
class PairedRuns:
    """Runs over the same questions, sorted by question id.

    cluster, task: codes 0, 1, … of videos and subtasks.
    left_out: for each run, how many of its questions another run lacks.
    """

    names: tuple[str, ...]
    question_id: np.ndarray
    correct: Bool[np.ndarray, "runs n"]
    cluster: Int[np.ndarray, " n"]
    n_clusters: int
    task: Int[np.ndarray, " n"] | None
    task_names: tuple[str, ...]
    left_out: tuple[int, ...]

    @property
    def n(self) -> int:
        return self.correct.shape[1]

    @property
    def clustered(self) -> bool:
        """Whether any two questions share a video."""
        return self.n_clusters < self.n


def pair(runs: Sequence[RunOutcomes], *, intersect: bool = False) -> PairedRuns:
    """Aligns `runs` by question id.

    intersect: keep the questions that all runs answered, instead of refusing unequal sets.

    Raises MapflowError, naming run and question: for an empty run; a duplicate or missing id; an
    outcome that is not 0 or 1; a gold answer, video or subtask that differs between runs; and for
    unequal question sets unless `intersect`.
    """
    if not runs:
        raise MapflowError("no runs given; name at least one")
    places = [_places(run) for run in runs]
    shared = _shared_ids(runs, places, intersect)
    rows = [np.fromiter((of_run[one] for one in shared), int, len(shared)) for of_run in places]
    correct = np.stack([_outcomes(run)[row] for run, row in zip(runs, rows, strict=True)])
    _agreed(runs, rows, shared, "gold")
    video = _agreed(runs, rows, shared, "video_id")
    task = _agreed(runs, rows, shared, "task")
    n_clusters, cluster = len(shared), np.arange(len(shared))
    if video is not None:
        names, codes = coded(video)
        n_clusters, cluster = len(names), np.array(codes)
    task_names, task_codes = coded(task) if task is not None else ([], None)
    return PairedRuns(
        tuple(run.name for run in runs),
        np.array(shared, dtype=object),
        correct,
        cluster,
        n_clusters,
        None if task_codes is None else np.array(task_codes),
        tuple(task_names),
        tuple(len(of_run) - len(shared) for of_run in places),
    )


def _places(run: RunOutcomes) -> dict[str, int]:
    """Question id → row."""
    ids = _text(run, "question_id", run.question_id)
    if not len(ids):
        raise MapflowError(f"run {run.name!r} has no answered question: nothing to compare")
    found: dict[str, int] = {}
    repeated = [one for row, one in enumerate(ids) if found.setdefault(one, row) != row]
    if repeated:
        raise MapflowError(
            f"run {run.name!r} answers question {quoted(min(repeated))} more than once"
            f" ({count(len(repeated), 'repeated answer')} in all); keep one answer per question"
        )
    return found


def _shared_ids(
    runs: Sequence[RunOutcomes], places: Sequence[dict[str, int]], intersect: bool
) -> list[str]:
    """The ids that all runs have, sorted."""
    shared = sorted(reduce(lambda a, b: a & b, (of_run.keys() for of_run in places)))
    if all(len(of_run) == len(shared) for of_run in places):
        return shared
    counts = ", ".join(
        f"{run.name!r} has {len(of_run)}" for run, of_run in zip(runs, places, strict=True)
    )
    if not shared:
        raise MapflowError(
            f"the runs share no question: {counts}; check that they come from the same benchmark"
        )
    if not intersect:
        run, of_run = next(
            (run, ids) for run, ids in zip(runs, places, strict=True) if len(ids) > len(shared)
        )
        example = min(of_run.keys() - set(shared))
        raise MapflowError(
            f"the runs answer different questions: {counts}, {len(shared)}"
            f" {'is' if len(shared) == 1 else 'are'} shared (not all have {quoted(example)} of"
            f" {run.name!r}); use --intersect to compare the shared ones"
        )
    return shared


def _outcomes(run: RunOutcomes) -> Bool[np.ndarray, " n"]:
    column = np.asarray(run.correct)
    _check_length(run, "correct", column)
    if column.dtype == bool:
        return column
    try:
        numbers = column.astype(float)
    except (TypeError, ValueError):
        numbers = np.full(len(column), np.nan)
    bad = np.flatnonzero((numbers != 0) & (numbers != 1))
    if len(bad):
        question = _text(run, "question_id", run.question_id)[bad[0]]
        raise MapflowError(
            f"run {run.name!r}, question {quoted(question)}: outcome {column[bad[0]]} is neither 0"
            f" nor 1 ({len(bad)} such in all); count an unanswered question as wrong"
        )
    return numbers == 1


def _agreed(
    runs: Sequence[RunOutcomes], rows: Sequence[np.ndarray], shared: Sequence[str], field: str
) -> np.ndarray | None:
    """The column `field` in the shared order, or None if no run has it.

    Raises MapflowError if runs that have it disagree.
    """
    found: tuple[RunOutcomes, np.ndarray] | None = None
    for run, row in zip(runs, rows, strict=True):
        if getattr(run, field) is None:
            continue
        column = _text(run, field, getattr(run, field))[row]
        if found is None:
            found = run, column
            continue
        differ = np.flatnonzero(found[1] != column)
        if len(differ):
            at = differ[0]
            raise MapflowError(
                f"question {quoted(shared[at])} has {field} {quoted(found[1][at])} in run"
                f" {found[0].name!r} but {quoted(column[at])} in run {run.name!r} ({len(differ)}"
                " such in all); compare runs of one version of the benchmark"
            )
    return None if found is None else found[1]


def _text(run: RunOutcomes, field: str, values: Column) -> np.ndarray:
    """The column as strings, kept as objects: each takes its own length, not that of the longest.

    Lists are converted by way of objects, as NumPy would turn a NaN among strings into text.
    Raises MapflowError for missing values, and for ids longer than `MOST_ID_BYTES`.
    """
    column = values if isinstance(values, np.ndarray) else np.array(values, dtype=object)
    _check_length(run, field, column)
    if column.dtype.kind in "Of":
        missing = np.flatnonzero((column != column) | (column == None))  # noqa: E711 (elementwise)
        if len(missing):
            raise MapflowError(
                f"run {run.name!r} has no {field} in row {missing[0] + 1} ({len(missing)} such in"
                " all); complete the column or leave it out"
            )
    texts = [one if type(one) is str else str(one) for one in column.tolist()]
    if field != "gold":  # the text of an answer, not an id
        for one in texts:
            check_id(f"run {run.name!r}", field, one)
    return np.array(texts, object)


def _check_length(run: RunOutcomes, field: str, column: np.ndarray) -> None:
    if column.ndim != 1 or len(column) != len(run.question_id):
        raise MapflowError(
            f"run {run.name!r}: column {field} has shape {column.shape}, the question ids have"
            f" ({len(run.question_id)},); give one value per question"
        )

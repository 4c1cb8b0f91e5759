"""One intervention's answers to one benchmark, as arrays for the statistics, with the manifest.

Runs are read from run folders (records.jsonl) or from the logs of other tools (`results/logs`),
whose readers check every line: a broken or contradictory one raises an error that names file and
line.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from sys import intern
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import coded
from mapflow.results.contract.visible_text import counted
from mapflow.results.logs.readers import read_logs
from mapflow.results.records.record import Record
from mapflow.results.runs.asked import read_asked, was_asked
from mapflow.results.runs.folder import RECORDS, each_record
from mapflow.results.runs.manifest import read_manifest
from mapflow.results.runs.model_names import distinct_names, model_name


class _Answer(NamedTuple):
    """The fields of a record that are counted."""

    video_id: str | None
    task: str
    gold: str
    correct: bool
    valid: bool | None
    failed: bool
    n_options: int
    n_right: int
    edges_kept: float
    edges_total: float
    frames: int
    n_frames: int
    p_target: float
    target_margin: float


@dataclass(frozen=True)
class Run:
    """All arrays have one entry per question, in the order of the file; texts are objects.

    `failed` marks failed questions, which count for no accuracy. `n_right` counts the options with
    the right answer's text. Unknown values: `n_options` 0 (also for open-ended questions), edges
    NaN, `frames` 0 (otherwise a fingerprint of the shown frames; `n_frames` is their number),
    `video_id` and `valid` None. `p_target` is the probability of the right answer's first token,
    `target_margin` the natural log of its letter's probability over the best other letter's; NaN
    where they were not recorded.
    `title` is the benchmark's name in tables, `total` the number of its questions, if known.
    `left_out` names benchmarks of the same place whose answers are not right or wrong.
    """

    source: Path
    intervention: str
    benchmark: str
    manifest: Mapping[str, Any]
    seed: int | None
    protocol: str
    question_id: np.ndarray
    video_id: np.ndarray | None
    task: np.ndarray
    gold: np.ndarray
    correct: Bool[np.ndarray, " n"]
    valid: Bool[np.ndarray, " n"] | None
    failed: Bool[np.ndarray, " n"]
    n_options: Int[np.ndarray, " n"]
    n_right: Int[np.ndarray, " n"]
    edges_kept: Float[np.ndarray, " n"]
    edges_total: Float[np.ndarray, " n"]
    frames: Int[np.ndarray, " n"]
    n_frames: Int[np.ndarray, " n"]
    p_target: Float[np.ndarray, " n"]
    target_margin: Float[np.ndarray, " n"]
    title: str
    total: int | None = None
    left_out: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        """The number of answered questions."""
        return int((~self.failed).sum())

    @property
    def complete(self) -> bool:
        """Whether all questions of the benchmark are answered, as far as is known."""
        return self.total in (None, self.n)

    @property
    def errors(self) -> int:
        """The number of failed questions."""
        return int(self.failed.sum())

    @property
    def model(self) -> str:
        """The checkpoint's name with its variant, else the adapter's, else the folder's."""
        return model_name(self.manifest, self.source.name)

    @property
    def edges_share(self) -> float | None:
        """Edges kept over causal edges; None if no record has them."""
        known = ~np.isnan(self.edges_kept) & (self.edges_total > 0)
        if not known.any():
            return None
        return float(self.edges_kept[known].sum() / self.edges_total[known].sum())

    @property
    def cluster(self) -> Int[np.ndarray, " n"] | None:
        """The video of each answered question as a code; None if unknown or all are different."""
        if self.video_id is None:
            return None
        names, codes = coded(self.video_id[~self.failed])
        return np.array(codes) if len(names) < len(codes) else None


def read_runs(
    place: Path,
    titles: Mapping[str, str] | None = None,
    sizes: Mapping[str, int] | None = None,
) -> list[Run]:
    """One run per intervention and benchmark under `place`, in the order of the manifest.

    Of a run folder, only the questions that were asked last (`asked.py`).

    `place` is a run folder, a folder of another tool's logs, or one of those logs. `titles`
    maps benchmarks to their names in tables (default: the benchmark itself), `sizes` to their
    numbers of questions (default: what the run has noted). Benchmarks whose answers are not all
    right or wrong are left out, which `left_out` tells. Raises MapflowError for any other place,
    for broken or contradictory lines, without answers, and where nothing else is there.
    """
    manifest, records = open_records(place)
    grouped: dict[tuple[str, str], dict[str, _Answer]] = {}
    about: dict[tuple[str, str], tuple[int | None, str]] = {}
    unscored: dict[str, str] = {}
    for record in records:
        if record.correct is None and record.error is None:
            unscored.setdefault(record.benchmark, record.task)
        if record.benchmark in unscored:
            continue
        key = (record.intervention, record.benchmark)
        rows = grouped.setdefault(key, {})
        about.setdefault(key, (record.seed, record.protocol))
        row = _answer(record)
        earlier = rows.get(record.question_id, row)
        if not earlier.failed and earlier != row:  # of a run folder, `each_record` names the lines
            raise MapflowError(
                f"{place}: question {record.question_id!r} is answered twice, and differently,"
                f" under {record.intervention!r}; keep one answer a question"
            )
        rows[record.question_id] = row  # an answer after errors counts
        if about[key][1] != record.protocol:
            raise MapflowError(
                f"{place}: protocols {about[key][1]!r} and {record.protocol!r} are mixed under"
                f" {record.intervention!r}; keep one protocol a run"
            )
    grouped = {key: rows for key, rows in grouped.items() if key[1] not in unscored}
    if unscored and not grouped:
        raise MapflowError(
            f"{str(place)!r}: answers to task {next(iter(unscored.values()))!r} are not right or"
            " wrong, which comparisons and leaderboards need; summary.json has the task's own"
            " scores, if it computes any"
        )
    if not grouped:
        raise MapflowError(f"{str(place)!r} holds no answers yet; there is nothing to compare")
    order = {name: i for i, name in enumerate(manifest.get("interventions") or {})}
    keys = sorted(
        grouped, key=lambda key: order.get(key[0], len(order))
    )  # stable: else as they appear
    titles = titles or {}
    noted = manifest.get("questions") if manifest.get("logged_by") else None
    totals = {**(noted or {}), **_noted_sizes(place, grouped), **(sizes or {})}
    return [
        _run(
            place,
            manifest,
            key,
            about[key],
            grouped.pop(key),
            title=titles.get(key[1], key[1]),
            total=totals.get(key[1]),
            left_out=tuple(titles.get(one, one) for one in unscored),
        )
        for key in keys
    ]


def _noted_sizes(
    place: Path, grouped: Mapping[tuple[str, str], Mapping[str, _Answer]]
) -> dict[str, int]:
    """Benchmark → number of questions of its tasks, where the run has noted all of them."""
    asked, tasks = read_asked(place), {}
    for (_, benchmark), rows in grouped.items():
        tasks.setdefault(benchmark, set()).update(row.task for row in rows.values())
    return {
        benchmark: sum(asked[task].of for task in own)
        for benchmark, own in tasks.items()
        if own <= asked.keys()
    }


def open_records(place: Path) -> tuple[dict[str, Any], Iterator[Record]]:
    """The manifest and an iterator over the records of the questions asked last.

    Raises MapflowError if `place` is not a run.
    """
    if not place.exists():
        raise MapflowError(f"{str(place)!r} does not exist; name the folder of a run")
    if (place / RECORDS).is_file():
        asked = read_asked(place)
        return read_manifest(place), (one for one in each_record(place) if was_asked(one, asked))
    if found := read_logs(place):
        return found
    alone = place.is_dir() and any(place.rglob("*results*.json"))
    raise MapflowError(
        f"{str(place)!r} holds no {RECORDS} and no sample logs of lmms-eval,"
        " lm-evaluation-harness or Inspect: "
        + ("results alone; run it again with --log_samples" if alone else "not the folder of a run")
    )


def _answer(record: Record) -> _Answer:
    """What of a record is counted; names that many records share are kept once."""
    return _Answer(
        intern(record.video_id) or None,
        intern(record.task),
        intern(record.target),
        bool(record.correct),
        record.valid,
        record.error is not None,
        record.n_options,
        record.n_right or 1,
        np.nan if record.edges_kept is None else record.edges_kept,
        np.nan if record.edges_total is None else record.edges_total,
        hash(str(record.frame_indices)) or 1 if record.frame_indices else 0,
        len(record.frame_indices or ()),
        np.nan if record.p_target is None else record.p_target,
        _target_margin(record),
    )


def _target_margin(record: Record) -> float:
    """By how much the right letter leads the best other one; NaN where several letters are right
    and where a probability is 0.
    """
    others = dict(record.option_probs or {})
    target = others.pop(record.target, 0.0)
    best = max(others.values(), default=0.0)
    if target <= 0 or best <= 0 or (record.n_right or 1) > 1:
        return np.nan
    return math.log(target / best)


def _run(
    place: Path,
    manifest: Mapping[str, Any],
    key: tuple[str, str],
    about: tuple[int | None, str],
    rows: Mapping[str, _Answer],
    title: str,
    total: int | None,
    left_out: tuple[str, ...],
) -> Run:
    answers = rows.values()
    videos = [one.video_id for one in answers]
    valid = [one.valid for one in answers if not one.failed]
    return Run(
        source=place,
        intervention=key[0],
        benchmark=key[1],
        manifest=manifest,
        seed=about[0],
        protocol=about[1],
        question_id=np.array(list(rows), dtype=object),
        video_id=None if None in videos else np.array(videos, dtype=object),
        task=np.array([one.task for one in answers], dtype=object),
        gold=np.array([one.gold for one in answers], dtype=object),
        correct=np.array([one.correct for one in answers], dtype=bool),
        valid=None if None in valid else np.array([bool(one.valid) for one in answers]),
        failed=np.array([one.failed for one in answers], dtype=bool),
        n_options=np.array([one.n_options for one in answers], dtype=int),
        n_right=np.array([one.n_right for one in answers], dtype=int),
        edges_kept=np.array([one.edges_kept for one in answers], dtype=float),
        edges_total=np.array([one.edges_total for one in answers], dtype=float),
        frames=np.array([one.frames for one in answers], dtype=np.int64),
        n_frames=np.array([one.n_frames for one in answers], dtype=int),
        p_target=np.array([one.p_target for one in answers], dtype=float),
        target_margin=np.array([one.target_margin for one in answers], dtype=float),
        title=title,
        total=total,
        left_out=left_out,
    )


def share_text(run: Run) -> str:
    """The share of the benchmark that a run has answered: "20 of 320 questions (6.2 %)"."""
    total = run.total or run.n
    return f"{run.n:,} of {counted(total, 'question')} ({100 * run.n / total:.1f} %)"


def incomplete_note(runs: Sequence[Run]) -> list[str]:
    """Notes for tables about runs of one benchmark that leave out questions of it, or others."""
    named = zip(labels(runs), runs, strict=True)
    said = "; ".join(f"{name} {share_text(run)}" for name, run in named if not run.complete)
    return [
        *([f"Incomplete on {runs[0].title}: {said}."] if said else []),
        *left_out_notes(runs),
    ]


def left_out_notes(runs: Sequence[Run]) -> list[str]:
    """One note per place with benchmarks that tables cannot show."""
    return list(
        dict.fromkeys(
            f"Left out of {run.source}: {', '.join(run.left_out)}, whose answers are not right or"
            " wrong (the task's own scores, if any: summary.json)."
            for run in runs
            if run.left_out
        )
    )


def labels(runs: Sequence[Run]) -> list[str]:
    """The shortest unique names of the runs that hide no difference of models.

    They use the intervention alone, or with the model, the folder or the whole path.
    """
    models = model_names(runs)
    interventions = [run.intervention for run in runs]
    named = {
        model
        for model, run in zip(models, runs, strict=True)
        if (run.manifest.get("identity") or {}).get("model")
    }
    schemes: Iterable[list[str]] = (
        *([interventions] if len(named) < 2 else []),
        *([models] if len(set(interventions)) == 1 else []),
        [f"{model} {name}" for model, name in zip(models, interventions, strict=True)],
        [f"{run.source.name} {run.intervention}" for run in runs],
    )
    for names in schemes:
        if len(set(names)) == len(runs):
            return names
    return [f"{run.source}:{run.intervention}" for run in runs]


def model_names(runs: Sequence[Run]) -> list[str]:
    """Each run's model; precision and weights are added where models of one name differ in them."""
    return distinct_names([run.manifest for run in runs], [run.model for run in runs])

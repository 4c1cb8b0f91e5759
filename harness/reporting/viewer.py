"""All questions of some runs for the report's viewer: answers, texts and frames.

Answers come from the records, texts from the benchmark's question files, frames from its videos.
Frames are those that the run recorded. Nothing is downloaded; what is missing is named in a note.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from mapflow.model_adapters.progress import Step, no_progress
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import Question
from mapflow.results.contract.visible_text import counted
from mapflow.results.records.record import Record
from mapflow.results.report import Answer, ViewedQuestion, ViewerData
from mapflow.results.runs.run import Run, labels, open_records
from mapflow.tasks.registry import BENCHMARKS, load_questions

FRAME_HEIGHT = 84
"""Pixels; a frame takes about 3 KiB as JPEG."""

Key = tuple[Path, str]
"""Folder and intervention: a column of the viewer. All benchmarks of a folder share it."""
Names = Mapping[Key, str]
"""The columns with their names, in order."""
ByRun = Mapping[str, Sequence[Record | None]]
"""Question id → its record in each column of the viewer, None where a run lacks it."""


def key(run: Run) -> Key:
    return run.source, run.intervention


def column_names(runs: Sequence[Run]) -> dict[Key, str]:
    """The columns of `runs` in order of appearance, by names that are unique."""
    folders = {key(run): run for run in reversed(runs)}
    columns = list(folders)[::-1]
    return dict(zip(columns, labels([folders[column] for column in columns]), strict=True))


def viewer_data(
    runs: Sequence[Run], data: Path | None, n_pictured: int, step: Step = no_progress
) -> ViewerData:
    """The answers of `runs` to every question, with texts and frames where available.

    data: folder of the benchmarks' files; without it, only bundled benchmarks get texts and frames.
    n_pictured: how many questions get frames at most, the most useful ones first (`most_useful`).
    step: told about every question that got its frames.
    """
    names = column_names(runs)
    titles = {run.benchmark: run.title for run in runs}
    records = _records_by_question(runs, list(names))
    known, notes = known_questions(records, data)
    shown = {
        question_id: _viewed(question_id, own, known.get(question_id), titles)
        for question_id, own in sorted(records.items())
    }
    notes += _add_frames(shown, records, known, n_pictured, step)
    return ViewerData(list(names.values()), list(shown.values()), notes)


def _records_by_question(
    runs: Sequence[Run], columns: Sequence[tuple[Path, str]]
) -> dict[str, list[Record | None]]:
    """Each question's record under every (folder, intervention) of `columns`."""
    found: dict[str, list[Record | None]] = {}
    shown = {(*key(run), run.benchmark) for run in runs}
    for source in dict.fromkeys(source for source, _ in columns):
        for record in open_records(source)[1]:
            column = source, record.intervention
            if (*column, record.benchmark) in shown:
                own = found.setdefault(record.question_id, [None] * len(columns))
                own[columns.index(column)] = record
    return found


def known_questions(
    question_ids: Iterable[str], data: Path | None
) -> tuple[dict[str, Question], list[str]]:
    """The questions of the subtasks that `question_ids` belong to, by id.

    Also returns notes that name the benchmarks or subtasks whose files are not available, and why.
    """
    subtasks: dict[str, dict[str, None]] = {}
    for question_id in question_ids:
        benchmark, _, rest = question_id.partition("/")
        subtasks.setdefault(benchmark, {})[rest.partition("/")[0]] = None
    known: dict[str, Question] = {}
    missing: dict[str, list[str]] = {}
    for benchmark in sorted(subtasks):
        for subtask in sorted(subtasks[benchmark]):
            try:
                loaded = _subtask_questions(benchmark, subtask, data)
            except MapflowError as error:
                missing.setdefault(str(error), []).append(f"{benchmark}/{subtask}")
                continue
            known |= {question.question_id: question for question in loaded}
    notes = []
    for reason, names in missing.items():
        benchmark = names[0].partition("/")[0]
        whole = names == [f"{benchmark}/{subtask}" for subtask in sorted(subtasks[benchmark])]
        shown = benchmark if whole else ", ".join(names)
        notes.append(f"Only question ids are shown for {shown}: {reason}.")
    return known, notes


def _subtask_questions(benchmark: str, subtask: str, data: Path | None) -> list[Question]:
    """Raises MapflowError if the files are not on this machine."""
    if benchmark not in BENCHMARKS:
        names = ", ".join(sorted(BENCHMARKS))
        raise MapflowError(f"{benchmark!r} is not a benchmark of mapflow ({names})")
    if data is None and BENCHMARKS[benchmark].bundled is None:
        raise MapflowError("texts and frames need --data_dir DIR or MAPFLOW_DATA")
    return load_questions(f"{BENCHMARKS[benchmark].task}_{subtask}", data_dir=data)


def _viewed(
    question_id: str,
    records: Sequence[Record | None],
    known: Question | None,
    titles: Mapping[str, str],
) -> ViewedQuestion:
    first = next(record for record in records if record is not None)
    answers = [None if record is None else Answer.of(record) for record in records]
    viewed = ViewedQuestion(
        question_id,
        first.task,
        first.video_id,
        first.target,
        answers,
        benchmark=titles[first.benchmark],
    )
    return viewed if known is None else replace(viewed, stem=known.stem, options=known.options)


def _add_frames(
    shown: dict[str, ViewedQuestion],
    records: ByRun,
    known: Mapping[str, Question],
    n_pictured: int,
    step: Step,
) -> list[str]:
    """Adds frames to `n_pictured` of the questions; returns notes for the reader.

    Stops after `n_pictured` videos that cannot be read: then the videos are not on this machine.
    """
    pictured = missing = 0
    for question_id in most_useful(records):
        if pictured == n_pictured or (missing and missing == n_pictured):
            break
        recorded = (record.frame_indices for record in records[question_id] if record)
        frames = next((indices for indices in recorded if indices), None)
        if not frames or question_id not in known:
            continue
        try:
            pictures = frames_of(known[question_id], frames)
        except MapflowError:
            missing += 1
            continue
        shown[question_id] = replace(shown[question_id], frames=pictures)
        pictured += 1
        step("frames", 1)
    notes = []
    if 0 < pictured < len(shown):
        notes.append(
            f"Frames of {pictured:,} of {len(shown):,} questions (▦) are embedded: in each"
            " comparison those with flipped answers first, then wrong ones, then the least sure"
            " (--frames N embeds more)."
        )
    if missing:
        notes.append(f"{counted(missing, 'video')} could not be read on this machine.")
    return notes


def most_useful(records: ByRun) -> list[str]:
    """All questions, those most worth a look first, as the viewer sorts them.

    For the first run and each other one: questions whose answer flips, then wrong answers, then
    failed questions, then right answers; within each, the smallest margin between the two most
    probable options first. Comparisons take turns, so each shows its own.
    """
    n_runs = len(next(iter(records.values()), ()))
    lists = [
        sorted(records, key=lambda one, run=run: (*_usefulness(records[one], run), one))
        for run in (range(1, n_runs) if n_runs > 1 else range(n_runs))
    ]
    return list(dict.fromkeys(chain.from_iterable(zip(*lists, strict=True))))


def _usefulness(records: Sequence[Record | None], run: int) -> tuple[int, float]:
    """Of a question in the comparison of the first run with another; smaller is more useful."""
    before, after = records[0], records[run]
    if after is None:
        return 4, 0.0
    margin = math.inf if after.margin is None else after.margin
    if after.correct is None:
        return 2, margin
    if before is not None and before.correct is not None and before.correct != after.correct:
        return 0, margin
    return (3 if after.correct else 1), margin


def frames_of(question: Question, indices: tuple[int, ...]) -> list[str]:
    """The frames with these numbers as JPEG data URIs.

    Raises MapflowError if the video is missing or broken.
    """
    from mapflow.model_adapters.video.reader import read_frames

    def recorded(
        n_frames: int, fps: float, n: int, start: float | None = None, end: float | None = None
    ) -> tuple[int, ...]:
        return indices

    whole_file = replace(question.clip, start=None, end=None)
    sampled = read_frames(whole_file, recorded, len(indices))
    return [_jpeg(pixels) for pixels in sampled.pixels]


def _jpeg(pixels: UInt8[np.ndarray, "height width 3"]) -> str:
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail((4 * FRAME_HEIGHT, FRAME_HEIGHT))
    data = io.BytesIO()
    image.save(data, "JPEG", quality=70)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode('ascii')}"

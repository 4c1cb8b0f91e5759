"""Every question under every run, for the report's viewer; the flipped ones first in line for frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mapflow.harness.reporting.questions import benchmark_documents, frames_of
from mapflow.results.contract.errors import MapflowError
from mapflow.results.records.record import Record
from mapflow.results.report import Answer, ViewedQuestion, ViewerData
from mapflow.results.runs.run import Run, labels, open_records
from mapflow.tasks.documents import Document


def viewer_data(runs: Sequence[Run], data: Path | None, n_pictured: int) -> ViewerData:
    """`n_pictured`: of so many questions at most frames are embedded."""
    folders = {(run.source, run.intervention): run for run in reversed(runs)}
    columns = list(folders)[::-1]
    names = labels([folders[column] for column in columns])
    records: dict[str, list[Record | None]] = {}
    for k, (source, intervention) in enumerate(columns):
        wanted = {
            run.benchmark
            for run in runs
            if (run.source, run.intervention) == (source, intervention)
        }
        for record in open_records(source)[1]:
            if (
                record.intervention == intervention
                and record.question_id.partition("/")[0] in wanted
            ):
                records.setdefault(record.question_id, [None] * len(columns))[k] = record
    texts, notes = _texts({run.benchmark for run in runs}, data)
    questions = {
        question: _viewed(question, own, texts.get(question))
        for question, own in sorted(records.items())
    }
    missing = 0
    shown = 0
    for question in sorted(
        questions, key=lambda question: (_first_flip(records[question]), question)
    ):
        frames = next((r.frame_indices for r in records[question] if r and r.frame_indices), None)
        if shown == n_pictured or not frames or question not in texts:
            continue
        try:
            pictures = frames_of(texts[question], frames)
        except MapflowError:
            missing += 1
            if missing == n_pictured:
                break  # the videos are not on this machine
            continue
        questions[question] = replace(questions[question], frames=pictures)
        shown += 1
    if shown < len(questions):
        notes.append(
            f"Frames of {shown:,} of {len(questions):,} questions (▦) are embedded, flipped ones first."
        )
    if missing:
        notes.append(f"{missing:,} videos could not be read here.")
    return ViewerData(names, list(questions.values()), notes)


def _texts(benchmarks: set[str], data: Path | None) -> tuple[dict[str, Document], list[str]]:
    texts: dict[str, Document] = {}
    notes = []
    for benchmark in sorted(benchmarks):
        try:
            texts |= benchmark_documents(benchmark, data)
        except MapflowError as error:
            notes.append(f"Ids alone are shown for {benchmark}: {error}.")
    return texts, notes


def _viewed(
    question: str, records: Sequence[Record | None], document: Document | None
) -> ViewedQuestion:
    first = next(record for record in records if record is not None)
    answers = [None if record is None else Answer.of(record) for record in records]
    viewed = ViewedQuestion(question, first.task, first.video_id, first.target, answers)
    if document is None:
        return viewed
    return replace(viewed, stem=document["stem"], options=list(document["options"]))


def _first_flip(records: Sequence[Record | None]) -> int:
    """The first run that differs from the first one in being right: runs are named in order of interest."""
    first = records[0]
    for k, record in enumerate(records[1:], 1):
        if (
            first
            and record
            and None not in (first.correct, record.correct)
            and first.correct != record.correct
        ):
            return k
    return len(records)

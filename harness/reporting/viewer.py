"""Every question under every run, for the report's viewer; the flipped ones first in line for frames."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import Clip
from mapflow.results.records.record import Record
from mapflow.results.report import Answer, ViewedQuestion, ViewerData
from mapflow.results.runs.run import Run, labels, open_records
from mapflow.tasks import documents
from mapflow.tasks.documents import Document, candidates_to_document


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


FRAME_HEIGHT = 84
"""Pixels; a frame is about 3 KiB as JPEG."""


def benchmark_documents(benchmark: str, data: Path | None) -> dict[str, Document]:
    """Every question of a benchmark by id. Raises MapflowError where its files are not at hand, saying which."""
    return {document["question_id"]: document for document in _documents(benchmark, data)}


def _documents(benchmark: str, data: Path | None) -> Iterator[Document]:
    from mapflow.tasks.data_folder import local_folder
    from mapflow.tasks.tomato import questions as tomato
    from mapflow.tasks.tvbench import questions as tvbench
    from mapflow.tasks.tvbench_open import questions as tvbench_open

    if benchmark == "motion":
        yield from _motion()
        return
    known = {
        "tvbench": (tvbench.LAYOUT, tvbench.SUBTASKS, tvbench.read_documents),
        "tvbench_open": (tvbench.LAYOUT, tvbench_open.SUBTASKS, tvbench_open.read_documents),
        "tomato": (tomato.LAYOUT, tomato.SUBTASKS, tomato.read_documents),
    }
    if benchmark not in known:
        raise MapflowError(f"texts and frames of {benchmark!r} are not mapflow's to read")
    folder = data or (Path(os.environ["MAPFLOW_DATA"]) if os.environ.get("MAPFLOW_DATA") else None)
    if folder is None:
        raise MapflowError(f"texts and frames of {benchmark!r} need --data_dir DIR or MAPFLOW_DATA")
    layout, subtasks, read = known[benchmark]
    found = local_folder(layout, folder.expanduser())
    for subtask in subtasks:
        if found.questions(subtask).is_file():
            yield from read(found, subtask)


def _motion() -> Iterator[Document]:
    from mapflow.tasks.data_folder import VideoFile

    root = Path(documents.__file__).parent / "motion" / "data"
    for file in sorted((root / "json").glob("*.json")):
        for number, row in enumerate(json.loads(file.read_text(encoding="utf-8"))):
            yield candidates_to_document(
                row,
                benchmark="motion",
                subtask=file.stem,
                number=number,
                video=lambda name, subtask=file.stem: VideoFile(root / "video" / subtask / name),
            )


def frames_of(document: Document, indices: tuple[int, ...]) -> list[str]:
    """The frames of these numbers as JPEG data URIs. Raises MapflowError where the video is missing or broken."""
    from mapflow.model_adapters.video.reader import read_frames
    from mapflow.results.contract.archives import Archive

    path = Path(document["video"])
    if document["archive"] and not path.is_file():
        Archive.open(Path(document["archive"])).extract(document["archive_entry"], path)

    def recorded(
        n_frames: int, fps: float, n: int, start: float | None = None, end: float | None = None
    ) -> tuple[int, ...]:
        return indices

    sampled = read_frames(Clip(str(path)), recorded, len(indices))
    return [_jpeg(pixels) for pixels in sampled.pixels]


def _jpeg(pixels: UInt8[np.ndarray, "height width 3"]) -> str:
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail((4 * FRAME_HEIGHT, FRAME_HEIGHT))
    data = io.BytesIO()
    image.save(data, "JPEG", quality=70)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode('ascii')}"

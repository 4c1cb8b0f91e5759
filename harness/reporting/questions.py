"""The questions behind a run's records: texts from the benchmark's files, frames from its videos.

Frames are those that the run has recorded, by number, small enough to travel in a page. What is not on this machine is
left out and said; nothing is fetched.
"""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import Clip
from mapflow.tasks import documents
from mapflow.tasks.documents import Document, candidates_to_document

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

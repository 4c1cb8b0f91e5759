"""A task's documents without lmms-eval's evaluator: for analyses, which ask the questions in their own way.

The same files, documents and ids as the tasks of the same names; knows no model.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from mapflow.results.contract.errors import MapflowError
from mapflow.tasks.data_folder import DataFolder, Layout, VideoFile, data_folder
from mapflow.tasks.documents import Document, candidates_to_document
from mapflow.tasks.hub import fetch
from mapflow.tasks.lmms_functions import MOTION
from mapflow.tasks.rows import read_rows
from mapflow.tasks.tomato import questions as tomato
from mapflow.tasks.tvbench import questions as tvbench
from mapflow.tasks.tvbench_open import questions as tvbench_open

Read = Callable[[DataFolder, str], list[Document]]


def load_documents(tasks: str, limit: int | None = None) -> list[Document]:
    """Documents of one or more tasks, separated by commas: benchmarks (`mapflow_motion`) or their subtasks; `limit` is
    how many of each subtask at most.

    Raises MapflowError for an unknown task, and where a benchmark's files are missing or wrong.
    """
    loaders = _loaders()
    chosen: dict[str, Callable[[], list[Document]]] = {}
    for task in filter(None, map(str.strip, tasks.split(","))):
        own = {name: load for name, load in loaders.items() if name == task}
        own = (
            own
            or {name: load for name, load in loaders.items() if name.rpartition("/")[0] == task}
            or {name: load for name, load in loaders.items() if name.replace("/", "_") == task}
        )
        if not own:
            benchmarks = sorted({name.rpartition("/")[0] for name in loaders})
            raise MapflowError(
                f"unknown task {task!r}; benchmarks: {', '.join(benchmarks)}, and their subtasks"
            )
        chosen |= own
    if not chosen:
        raise MapflowError("--task names no task, e.g. --task mapflow_motion")
    return [document for load in chosen.values() for document in load()[:limit]]


def _loaders() -> dict[str, Callable[[], list[Document]]]:
    """ "mapflow_<benchmark>/<subtask>" → its documents."""
    found = {
        f"mapflow_motion/{file.stem}": partial(_motion, file.stem)
        for file in sorted(MOTION.glob("json/*.json"))
    }
    published: tuple[tuple[str, Layout, tuple[str, ...], Read], ...] = (
        ("tvbench", tvbench.LAYOUT, tuple(tvbench.SUBTASKS), tvbench.read_documents),
        ("tvbench_open", tvbench.LAYOUT, tvbench_open.SUBTASKS, tvbench_open.read_documents),
        ("tomato", tomato.LAYOUT, tuple(tomato.SUBTASKS), tomato.read_documents),
    )
    for benchmark, layout, subtasks, read in published:
        found |= {
            f"mapflow_{benchmark}/{subtask}": partial(_published, layout, read, subtask)
            for subtask in subtasks
        }
    return found


def _motion(subtask: str) -> list[Document]:
    return [
        candidates_to_document(
            row,
            benchmark="motion",
            subtask=subtask,
            number=number,
            video=lambda name: VideoFile(MOTION / "video" / subtask / name),
        )
        for number, row in read_rows(MOTION / "json" / f"{subtask}.json")
    ]


def _published(layout: Layout, read: Read, subtask: str) -> list[Document]:
    return read(data_folder(layout) or fetch(layout, subtask), subtask)

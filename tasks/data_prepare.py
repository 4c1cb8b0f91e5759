"""Bring a benchmark's files into their folder: fetch from the Hub, unpack zip files.

Files are fetched when a task runs without a data folder, or when `mapflow data prepare --fetch`
asks for it. Files that are there already are kept.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.visible_text import counted
from mapflow.tasks.benchmark import Benchmark
from mapflow.tasks.data_folder import DataFolder, Layout, fetched_folder, local_folder


def fetch(layout: Layout, subtask: str, folder: DataFolder | None = None) -> DataFolder:
    """The subtask's questions and, where the Hub has them, videos; by default in the cache folder.

    Raises MapflowError where the Hub cannot be reached and the questions are not there yet.
    """
    folder = fetched_folder(layout) if folder is None else folder
    if not layout.repository:
        if folder.questions(subtask).is_file():
            return folder
        by_hand = layout.by_hand.format(root=f"<data_dir>/{layout.name}")
        raise MapflowError(
            f"{layout.published_as} is not on this machine and is not fetched. {by_hand}; then set"
            " --data_dir or MAPFLOW_DATA"
        )
    from huggingface_hub import snapshot_download

    questions, videos = layout.questions[subtask], layout.videos[subtask]
    try:
        snapshot_download(
            layout.repository,
            repo_type="dataset",
            local_dir=folder.root,
            allow_patterns=[questions, f"{videos}.zip", f"{videos}/*"],
        )
        if not folder.questions(subtask).is_file():
            _write_split(layout, subtask, folder)
    except MapflowError:
        raise
    except Exception as error:  # the Hub's client raises anything from OSError to httpx's errors
        if not folder.questions(subtask).is_file():
            raise MapflowError(
                f"{layout.published_as} is not on this machine and the Hub cannot be reached"
                f" ({' '.join(str(error).split())[:200]}); set MAPFLOW_DATA or --data_dir to a"
                " folder that holds it"
            ) from error
    return folder


def _write_split(layout: Layout, subtask: str, folder: DataFolder) -> None:
    """Writes questions that the Hub holds only as a table (TOMATO's) as the publisher's file."""
    from datasets import load_dataset

    rows = load_dataset(layout.repository, split=subtask).to_list()
    path = folder.questions(subtask)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps({str(number): row for number, row in enumerate(rows)}), encoding="utf-8"
    )


@dataclass(frozen=True)
class Unpacked:
    """A zip file and how many of its files were written; 0 where all were there."""

    archive: Path
    folder: Path
    files: int


def folder_to_prepare(benchmark: Benchmark, data: Path) -> DataFolder:
    """The benchmark's folder within `data`; if there is none yet, the one that will be made."""
    try:
        return local_folder(benchmark.layout, data)
    except MapflowError:
        return DataFolder(benchmark.layout, (data / benchmark.layout.name).absolute())


def prepare_data(
    benchmark: Benchmark, folder: DataFolder, *, fetch_missing: bool = False
) -> list[Unpacked]:
    """Unpacks every zip file of videos.

    Raises MapflowError where one is refused or damaged, or the disk is full; earlier ones stay
    unpacked.
    """
    if fetch_missing:
        for subtask in benchmark.counts:
            fetch(benchmark.layout, subtask, folder)
    fresh = DataFolder(folder.layout, folder.root)  # sees zip files that have just been fetched
    return [
        Unpacked(archive.path, archive.folder, archive.unpack()) for archive in fresh.all_archives()
    ]


def render_prepare(benchmark: Benchmark, folder: DataFolder, unpacked: list[Unpacked]) -> str:
    """One line per zip file, and which files must be fetched by hand."""
    lines = []
    for one in unpacked:
        what = f"{counted(one.files, 'file')} unpacked into" if one.files else "nothing new for"
        lines.append(f"{one.archive.name}: {what} {one.folder}")
    by_hand = benchmark.layout.by_hand.format(root=folder.root)
    return "\n".join([*(lines or ["no zip files"]), by_hand])

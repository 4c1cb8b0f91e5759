"""`mapflow data prepare`: unpack the publishers' zip files where they lie, and say what must be fetched by hand.

Fetches from the Hub only where that is asked for. What is there already is left alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mapflow.results.contract.errors import MapflowError
from mapflow.tasks.benchmarks import Benchmark
from mapflow.tasks.data_folder import DataFolder, local_folder
from mapflow.tasks.hub import fetch as fetch_subtask


@dataclass(frozen=True)
class Unpacked:
    """A zip file and how many files of it were written; 0: they were all there."""

    archive: Path
    folder: Path
    files: int


def folder_to_prepare(benchmark: Benchmark, data: Path) -> DataFolder:
    """The benchmark's folder within `data`; where there is none yet, the one that it will get."""
    try:
        return local_folder(benchmark.layout, data)
    except MapflowError:
        return DataFolder(benchmark.layout, (data / benchmark.layout.name).absolute())


def prepare_data(
    benchmark: Benchmark, folder: DataFolder, *, fetch: bool = False
) -> list[Unpacked]:
    """Unpack every zip file of videos.

    Raises MapflowError where one is refused or damaged, or the disk is full; earlier ones stay unpacked.
    """
    if fetch:
        for subtask in benchmark.counts:
            fetch_subtask(benchmark.layout, subtask, folder)
    fresh = DataFolder(folder.layout, folder.root)  # sees zip files that have just arrived
    return [
        Unpacked(archive.path, archive.folder, archive.unpack()) for archive in fresh.all_archives()
    ]


def render_prepare(benchmark: Benchmark, folder: DataFolder, unpacked: list[Unpacked]) -> str:
    """A line a zip file, and what no program may fetch."""
    lines = [
        f"{one.archive.name}: {f'{one.files:,} files unpacked into' if one.files else 'nothing new for'} {one.folder}"
        for one in unpacked
    ]
    return "\n".join(
        [*(lines or ["no zip files"]), benchmark.layout.by_hand.format(root=folder.root)]
    )

"""Finds a benchmark's files in a local folder that is laid out as the publisher ships it.

A video is looked up in its folder first and in the publisher's zip files second. Paths and links
that lead out of the data folder are refused.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from mapflow.results.contract.archives import Archive, cache_folder
from mapflow.results.contract.errors import MapflowError


@dataclass(frozen=True)
class Layout:
    """A benchmark's files as its publisher lays them out.

    name: folder under the data folder; published_as: the publisher's name for it, also accepted.
    questions: subtask → question file.
    videos: subtask → folder of its videos; zip files of them lie beside or inside it.
    repository: on the Hugging Face Hub; empty for files that only users can fetch.
    by_hand: which files users must fetch, and where they go (`{root}` is the folder).
    """

    name: str
    published_as: str
    questions: Mapping[str, str]
    videos: Mapping[str, str]
    repository: str = ""
    by_hand: str = ""


@dataclass(frozen=True)
class VideoFile:
    """The path of a video; with `archive`, after `entry` of that zip file is unpacked to it."""

    path: Path
    archive: Path | None = None
    entry: str | None = None

    @property
    def exists(self) -> bool:
        return self.archive is not None or is_file(self.path)


@dataclass(frozen=True)
class DataFolder:
    """A benchmark's files under `root`; in a trusted folder, links may lead out of it."""

    layout: Layout
    root: Path
    trusted: bool = False

    def questions(self, subtask: str) -> Path:
        """The subtask's question file. Raises MapflowError where it lies outside the folder."""
        return self._inside(self.layout.questions[subtask])

    def video(self, subtask: str, name: str) -> VideoFile:
        """The video called `name`, which is relative to the subtask's folder.

        Raises MapflowError where a link leads out of the data folder.
        """
        folder = self.layout.videos[subtask]
        path = self._inside(f"{folder}/{name}")
        if is_file(path):
            return VideoFile(path)
        for archive in self.archives(subtask):
            if entry := archive.entry_for(path):
                return VideoFile(archive.unpacked(entry), archive.path, entry)
        return VideoFile(path)

    def archives(self, subtask: str) -> list[Archive]:
        """The zip files that may hold the subtask's videos; others are not opened."""
        return [self._opened(path) for path in self._zip_files(self.layout.videos[subtask])]

    def all_archives(self) -> list[Archive]:
        """Every zip file of videos, each once."""
        paths = {path for folder in self.layout.videos.values() for path in self._zip_files(folder)}
        return [self._opened(path) for path in sorted(paths)]

    def _opened(self, path: Path) -> Archive:
        if path not in self._archives:
            self._archives[path] = Archive.open(path)
        return self._archives[path]

    @cached_property
    def _archives(self) -> dict[Path, Archive]:
        return {}

    def _zip_files(self, folder: str) -> list[Path]:
        """`<folder>.zip`, zip files within it, and those of the folders above (`videos.zip`)."""
        parents = [
            f"{parent}.zip" for parent in PurePosixPath(folder).parents if str(parent) != "."
        ]
        beside = [self._inside(name) for name in (f"{folder}.zip", *parents)]
        within = sorted(self._inside(folder).glob("*.zip"))
        return [
            path
            for path in (*beside, *within)
            if path.is_file() and self._inside(path.relative_to(self.root))
        ]

    def _inside(self, name: str | Path) -> Path:
        path = self.root / name
        # realpath, since Path.resolve raises for a loop of links; a loop stays where it is
        inside = Path(os.path.realpath(path)).is_relative_to(os.path.realpath(self.root))
        if not self.trusted and not inside:
            raise MapflowError(f"{path}: refused, it leads out of the data folder {self.root}")
        return path


def is_file(path: Path) -> bool:
    """Whether there is such a file; False also for a name that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # longer than 255 bytes, a null character
        return False


def local_folder(layout: Layout, data: Path) -> DataFolder:
    """The benchmark's folder within `data`, or `data` itself.

    Raises MapflowError where neither is laid out as published.
    """
    if not data.is_dir():
        raise MapflowError(f"data folder {str(data)!r} does not exist")
    for root in (data / layout.name, data / layout.published_as, data):
        if any((root / file).is_file() for file in layout.questions.values()):
            return DataFolder(layout, root.absolute())
    example = next(iter(layout.questions.values()))
    raise MapflowError(
        f"data folder {str(data)!r} holds no {layout.published_as}:"
        f" no {layout.name}/{example} or {example}"
    )


def fetched_folder(layout: Layout) -> DataFolder:
    """The cache folder of files from the Hub; it may be empty."""
    return DataFolder(layout, (cache_folder() / layout.name).absolute())

"""Zip files of videos, as publishers ship them; their content is not trusted.

An archive is refused as a whole if an entry would be written outside its folder, is not a plain
file, occurs twice or is encrypted. So is one that claims to unpack to far more than its own size.
No entry is unpacked beyond the size that it claims.
"""

from __future__ import annotations

import contextlib
import hashlib
import lzma
import os
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from uuid import uuid4

from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import Clip
from mapflow.results.contract.visible_text import quoted, visible

BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    LookupError,
)

MOST_ENTRIES = 200_000
"""The largest of the benchmarks' archives has some thousands."""
MOST_TIMES = 50
"""An archive may unpack to this many times its size plus `SPARE` bytes; videos hardly compress."""
SPARE = 64 << 20
LONGEST_NAME, LONGEST_PART = 1024, 255


@dataclass(frozen=True)
class Archive:
    """A zip file, which unpacks into the folder of the same name beside it.

    entries: path within that folder → (entry's name, size in bytes). Where the zip file holds
        nothing but a folder of its name, that folder is not repeated.
    """

    path: Path
    entries: dict[str, tuple[str, int]]

    @classmethod
    def open(cls, path: Path) -> Archive:
        """Raises MapflowError for a file that is not a zip file or has an unsafe entry."""
        try:
            with zipfile.ZipFile(path) as archive:
                entries = archive.infolist()
        except (*BROKEN, OSError) as error:
            raise MapflowError(f"{path}: not a readable zip file ({error})") from None
        _check_sizes(entries, path)
        for entry in entries:
            _check(entry, path)
        files = [
            entry
            for entry in entries
            if not entry.is_dir() and not entry.filename.startswith("__MACOSX/")
        ]
        outer = {PurePosixPath(entry.filename).parts[0] for entry in files} == {path.stem}
        found: dict[str, tuple[str, int]] = {}
        for entry in files:
            parts = PurePosixPath(entry.filename).parts
            inner = parts[1:] if outer and len(parts) > 1 else parts
            if "/".join(inner) in found:
                raise MapflowError(f"{path}: refused, its entry {entry.filename!r} is there twice")
            found["/".join(inner)] = (entry.filename, entry.file_size)
        return cls(path, found)

    @property
    def folder(self) -> Path:
        """The folder that it unpacks into."""
        return self.path.with_suffix("")

    def entry_for(self, target: Path) -> str | None:
        """The entry that would unpack to `target`; None where there is none."""
        if not target.is_relative_to(self.folder):
            return None
        entry, _ = self.entries.get(target.relative_to(self.folder).as_posix(), (None, 0))
        return entry

    def extract(self, entry: str, target: Path) -> None:
        """Unpacks one entry to `target`, completely or not at all.

        Raises MapflowError if the entry is damaged or the disk is full.
        """
        partial = target.with_name(f".{target.name}.{uuid4().hex}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with (
                partial.open("xb") as sink,
                zipfile.ZipFile(self.path) as archive,
                archive.open(entry) as source,
            ):
                shutil.copyfileobj(source, sink, 1 << 20)
                written, claimed = sink.tell(), archive.getinfo(entry).file_size
            if written != claimed:
                raise zipfile.BadZipFile(f"it has {written:,} bytes and claims {claimed:,}")
            partial.replace(target)
        except BROKEN as error:
            raise MapflowError(f"{self.path}: entry {entry!r} is damaged ({error})") from None
        except OSError as error:
            raise MapflowError(
                f"{self.path}: entry {entry!r} cannot be unpacked to {target} ({error})"
            ) from None
        finally:
            with contextlib.suppress(OSError):
                partial.unlink()

    def unpack(self) -> int:
        """Unpacks the files that its folder lacks; returns the number of files written.

        Raises MapflowError where the disk has no room for them.
        """
        missing = {
            entry: (self.folder / inner, size)
            for inner, (entry, size) in self.entries.items()
            if not (self.folder / inner).is_file() or (self.folder / inner).stat().st_size != size
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        needed, free = (
            sum(size for _, size in missing.values()),
            shutil.disk_usage(self.folder).free,
        )
        if needed > free:
            raise MapflowError(
                f"{self.path}: needs {needed:,} bytes in {self.folder}, which has {free:,} left"
            )
        for entry, (target, _) in missing.items():
            if not target.resolve().is_relative_to(self.folder.resolve()):
                raise MapflowError(f"{self.path}: refused, {target} leads out of {self.folder}")
            self.extract(entry, target)
        return len(missing)

    def unpacked(self, entry: str) -> Path:
        """The place of an unpacked entry in the cache; it changes with the archive."""
        about = self.path.stat()
        identity = f"{self.path.resolve()}|{about.st_size}|{about.st_mtime_ns}"
        digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
        return cache_folder() / "unpacked" / f"{self.path.stem}-{digest}" / entry


def unpack_clip(clip: Clip) -> None:
    """Unpacks the clip's video where it is still in a zip file.

    Raises MapflowError if the zip file is refused, the entry is damaged or the disk is full.
    """
    target = Path(clip.path)
    if clip.archive is not None and clip.entry is not None and not target.is_file():
        Archive.open(Path(clip.archive)).extract(clip.entry, target)


def cache_folder() -> Path:
    """The folder for unpacked and fetched files: `MAPFLOW_CACHE`, else in the user's cache."""
    if own := os.environ.get("MAPFLOW_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mapflow"


def _check_sizes(entries: Sequence[zipfile.ZipInfo], path: Path) -> None:
    if len(entries) > MOST_ENTRIES:
        raise MapflowError(
            f"{path}: refused, it has {len(entries):,} entries; {MOST_ENTRIES:,} are allowed"
        )
    claimed, size = sum(entry.file_size for entry in entries), path.stat().st_size
    if claimed > MOST_TIMES * size + SPARE:
        raise MapflowError(
            f"{path}: refused, its {size:,} bytes would unpack to {claimed:,},"
            f" more than {MOST_TIMES} times as many"
        )


def _check(entry: zipfile.ZipInfo, path: Path) -> None:
    name = entry.orig_filename  # as it is written: zipfile itself would cut it at a NUL
    parts = PurePosixPath(name).parts
    outside = name.startswith(("/", "~")) or ".." in parts
    if outside or "\\" in name or PureWindowsPath(name).drive or not parts:
        raise MapflowError(
            f"{path}: refused, its entry {quoted(name)} would land outside the folder"
        )
    if visible(name) != name or len(name) > LONGEST_NAME or max(map(_bytes, parts)) > LONGEST_PART:
        raise MapflowError(f"{path}: refused, its entry {quoted(name)} is not a valid file name")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        what = "link" if kind == stat.S_IFLNK else "device"
        raise MapflowError(f"{path}: refused, its entry {name!r} is a {what}")
    if entry.flag_bits & 0x1:
        raise MapflowError(f"{path}: refused, its entry {name!r} is encrypted")


def _bytes(part: str) -> int:
    return len(part.encode("utf-8", "surrogatepass"))

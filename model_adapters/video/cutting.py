"""Clips as files that other programs read: cut to their bounds, unpacked, with a known suffix.

A program that cannot trim would see the whole video. So the frames within the bounds are decoded
by this room's reader and written as an H.264 file without loss: the file's frames, read whole, are
the clip's frames, pixel for pixel. It has the video's average frame rate and no sound.

Cut clips lie in the cache folder, named by content: the video's SHA-256 and the bounds in
seconds. A file appears there complete or not at all, so processes share the folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import numpy as np

from mapflow.model_adapters.video.decoding import upright_rgb
from mapflow.model_adapters.video.opening import open_clip, unreadable
from mapflow.model_adapters.video.reader import SourceVideo, collect_frames
from mapflow.model_adapters.video.sampling import every_frame_within
from mapflow.results.contract.archives import cache_folder, unpack_clip
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.files import sha256
from mapflow.results.contract.question import Clip

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

SUFFIXES = (".mp4", ".avi", ".mov")
"""Suffixes by which every model of lmms-eval knows a video; some show others no video at all."""
FORM = 1
"""Part of a cut clip's name. Raise it when the files change for the same bounds."""
TIME_LIMIT = 600.0
"""Seconds per clip; a clip of 30 s at 480p takes two or three."""
MOST_BYTES = 32 << 30
"""Cut clips beyond this total are removed, those that were used longest ago first."""
IN_USE = 3600.0
"""Seconds after its last use for which a cut clip is never removed."""
FEWEST_FRAMES = 2
"""A clip of one frame shows it twice: qwen_vl_utils and others refuse a single frame."""
_WITHOUT_LOSS = {"qp": "0", "preset": "veryfast", "bf": "0", "g": "24"}


def clip_file(clip: Clip) -> Path:
    """A file that shows the clip and nothing else.

    Without bounds the video itself, under a name with a suffix of `SUFFIXES`; it is opened, not
    decoded. Raises VideoError as `read_frames`, and MapflowError if the cache cannot be written.
    """
    if clip.start is None and clip.end is None:
        with _named(clip):
            unpack_clip(clip)
        with open_clip(clip):
            return _with_known_suffix(Path(clip.path))
    with _named(clip):
        unpack_clip(clip)
    if not Path(clip.path).is_file():
        raise unreadable(clip, "no such file")
    about = os.stat(clip.path)  # noqa: PTH116 (one call for three values, also of odd paths)
    content = _digest(os.path.abspath(clip.path), about.st_size, about.st_mtime_ns)  # noqa: PTH100
    identity = json.dumps([FORM, content, clip.start, clip.end])
    target = _folder() / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.mp4"
    if not target.is_file():
        _write(target, lambda partial: _cut(clip, partial))
        _remove_oldest(target.parent)
    with suppress(OSError):
        os.utime(target)
    return target


def blank_file() -> Path:
    """A grey clip of two seconds, shown in place of a video that cannot be shown."""
    target = _folder() / f"blank-{FORM}.mp4"
    if not target.is_file():

        def draw(partial: Path) -> None:
            with _ClipWriter(partial) as output:
                grey = np.full((112, 112, 3), 127, np.uint8)
                for _ in range(32):
                    output.write_rgb(grey, Fraction(16))

        _write(target, draw)
    return target


def _cut(clip: Clip, target: Path) -> None:
    """Writes the clip's frames to `target`."""
    with _ClipWriter(target) as output:

        def begin(video: SourceVideo, indices: tuple[int, ...]) -> _Copy:
            output.restart()
            return _Copy(output, video, indices)

        collect_frames(clip, every_frame_within, 1, begin, TIME_LIMIT)


class _Copy:
    """Collects frames by writing them."""

    def __init__(self, output: _ClipWriter, video: SourceVideo, indices: tuple[int, ...]) -> None:
        self._output, self._video = output, video
        self._first, self._last = indices[0], indices[-1]
        self._times = max(1, FEWEST_FRAMES // len(indices))

    def add(self, number: int, frame: VideoFrame) -> None:
        if not self._first <= number <= self._last:
            return
        self._video.seconds(frame)  # raises for a damaged frame
        rate = self._video.rate or Fraction(25)
        for _ in range(self._times):
            self._output.write(frame, self._video.size, rate)

    def result(self, count: int) -> None:
        return


class _ClipWriter:
    """Writes an H.264 file without loss.

    Frames whose planes H.264 stores as they are, 8 bits with halved colour, are stored so. Others,
    and rotated ones, are stored as the RGB pixels that `upright_rgb` makes of them.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._container: OutputContainer | None = None
        self._stream: VideoStream | None = None
        self._count = 0

    def __enter__(self) -> _ClipWriter:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None and self._container is not None and self._stream is not None:
            self._container.mux(self._stream.encode(None))
        self.restart()

    def restart(self) -> None:
        """Ends the file; frames after this begin it anew."""
        if self._container is not None:
            self._container.close()
        self._container, self._stream, self._count = None, None, 0

    def write(self, frame: VideoFrame, size: tuple[int, int], rate: Fraction) -> None:
        """`size` is the (width, height) of the stream, as which the reader shows every frame."""
        even = size[0] % 2 == 0 and size[1] % 2 == 0
        as_it_is = frame.format.name in ("yuv420p", "yuvj420p") and not round(frame.rotation)
        if not (as_it_is and even and (frame.width, frame.height) == size):
            self.write_rgb(upright_rgb(frame, *size), rate)
            return
        stream = self._opened("libx264", frame.format.name, size, rate)
        context = stream.codec_context
        if self._count == 0:
            context.color_range, context.colorspace = frame.color_range, frame.colorspace
        self._encode(frame, stream, rate)

    def write_rgb(self, pixels: np.ndarray, rate: Fraction) -> None:
        """`pixels`: [rows, columns, 3] of uint8."""
        import av

        height, width = pixels.shape[:2]
        stream = self._opened("libx264rgb", "rgb24", (width, height), rate)
        self._encode(av.VideoFrame.from_ndarray(pixels, format="rgb24"), stream, rate)

    def _opened(
        self, codec: str, pixel_format: str, size: tuple[int, int], rate: Fraction
    ) -> VideoStream:
        import av

        if self._stream is None:
            self._container = av.open(str(self._path), "w", format="mp4")
            self._stream = self._container.add_stream(codec, rate=rate, options=_WITHOUT_LOSS)  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType, reportCallIssue]
            assert self._stream is not None
            self._stream.pix_fmt = pixel_format
            self._stream.width, self._stream.height = size
            self._stream.codec_context.time_base = 1 / rate
            self._stream.codec_context.thread_count = 2
        return self._stream

    def _encode(self, frame: VideoFrame, stream: VideoStream, rate: Fraction) -> None:
        from av.video.frame import PictureType

        assert self._container is not None
        frame.pts, frame.time_base = self._count, 1 / rate
        frame.pict_type = PictureType.NONE  # else the kinds of the source's pictures are kept
        self._container.mux(stream.encode(frame))
        self._count += 1


class _named:
    """Names the clip in errors of its zip file."""

    def __init__(self, clip: Clip) -> None:
        self._clip = clip

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: type | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, MapflowError):
            raise unreadable(self._clip, str(error)) from None


@cache
def _digest(path: str, size: int, modified: int) -> str:
    """SHA-256 of a file; size and time of change are there to notice a new one."""
    return sha256([Path(path)])


def _folder() -> Path:
    return cache_folder() / "clips"


def _with_known_suffix(path: Path) -> Path:
    if path.suffix in SUFFIXES:
        return path
    place = path.absolute()
    name = hashlib.sha256(os.fsencode(place)).hexdigest()[:32]
    target = _folder() / f"{name}.mp4"
    if not (target.is_symlink() and target.readlink() == place):
        _write(target, lambda partial: partial.symlink_to(place))
    return target


def _write(target: Path, write: Callable[[Path], None]) -> None:
    """`write` makes a file that then becomes `target`. Raises MapflowError if it cannot be made."""
    partial = target.with_name(f".{target.stem}.{uuid4().hex}.mp4")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        partial.replace(target)
    except OSError as error:
        raise MapflowError(
            f"{target} cannot be written ({error}): set MAPFLOW_CACHE to another folder"
        ) from None
    finally:
        with suppress(OSError):
            partial.unlink()


def _remove_oldest(folder: Path) -> None:
    """Removes cut clips beyond `MOST_BYTES`, and what killed processes left of theirs."""
    files: list[tuple[float, int, Path]] = []
    for path in folder.iterdir():
        with suppress(OSError):  # removed by another process meanwhile
            about = path.lstat()
            files.append((about.st_mtime, about.st_size, path))
    total = sum(size for _, size, _ in files)
    for used, size, path in sorted(files):
        if time.time() - used < IN_USE:
            return
        if total > MOST_BYTES or path.name.startswith("."):
            with suppress(OSError):
                path.unlink()
            total -= size

"""Opens the file of a clip, and refuses files that are missing, too large or truncated.

Truncation needs a check here for AVI, Matroska (WebM) and GIF: the demuxer reads such files to
their end without an error, so a truncated file would pass for a shorter video with other frames.
AVI and Matroska state their size, and a GIF is a chain of blocks with an end mark. mp4 and mov need
no check: their packet table points beyond the end of a truncated file, so demuxing fails.

MPEG-TS, MPEG-PS, FLV and fragmented mp4 do not state their length. Truncated files of these formats
are read as they are, unless the last packet is incomplete and the demuxer marks it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import Clip

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

MAX_PIXELS = 4096 * 4096
"""Width × height of one frame: 48 MiB as RGB."""

DEMUXERS = "mov,matroska,avi,gif,mpegts,mpeg,flv,ogg,asf"
"""Accepted formats. Playlists are excluded: they refer to other files or to the network."""

AVI_SLACK = 0.01
"""Share of the stated size that may be missing: some writers omit the last bytes of the index."""

AVI_UNKNOWN = (0, 0xFFFFFFFF)
"""Stated sizes of recordings that were not finalised."""

EBML_HEADER, MATROSKA_SEGMENT = 0x1A45DFA3, 0x18538067
GIF_IMAGE, GIF_EXTENSION = 0x2C, 0x21


class VideoError(MapflowError):
    """A clip cannot be read: missing, damaged, too large, too slow, or no frame in its bounds."""


def unreadable(clip: Clip, reason: str) -> VideoError:
    return VideoError(f"video {clip.path!r}: {reason}")


@contextmanager
def open_clip(clip: Clip) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Yields the clip's file and its best video stream.

    Raises VideoError for a file that cannot be opened, and for file and decoder errors in the
    `with` body.
    """
    import av
    from av.error import FFmpegError

    # Not `options`: with it PyAV frees foreign memory on files without a header (flv).
    restrictions = {"format_whitelist": DEMUXERS, "protocol_whitelist": "file"}
    doing = "opened"
    try:
        path = Path(clip.path)
        if not path.is_file():
            raise unreadable(clip, "not a file" if path.exists() else "no such file")
        if path.stat().st_size == 0:
            raise unreadable(clip, "the file is empty (0 bytes)")
        if is_cut_short(path):
            raise unreadable(
                clip, "truncated: it ends before the size that its own structure states"
            )
        # With "file:" and an absolute path, ffmpeg takes names such as "http:..." for file names,
        # not protocols.
        with av.open(
            f"file:{path.absolute()}", container_options=restrictions, metadata_errors="replace"
        ) as container:
            stream = cast("VideoStream | None", container.streams.best("video"))
            if stream is None:
                raise unreadable(clip, "holds no video stream")
            if stream.codec_context is None:
                raise unreadable(clip, "no decoder for its video stream")
            frame_size(clip, stream)
            stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
            # More threads would decode beyond the wanted frames. Prefetching reads several clips in
            # parallel instead.
            stream.codec_context.thread_count = 1
            doing = "decoded"
            yield container, stream
    except (FFmpegError, OSError) as error:
        raise unreadable(
            clip, f"cannot be {doing} ({error.strerror}); the file is damaged or no video"
        ) from None


def frame_size(clip: Clip, stream: VideoStream) -> tuple[int, int]:
    width, height = stream.codec_context.width, stream.codec_context.height
    if width < 1 or height < 1:
        raise unreadable(clip, f"its frames have no size ({width}×{height})")
    if width * height > MAX_PIXELS:
        raise unreadable(
            clip, f"too large: frames of {width}×{height}, more than {MAX_PIXELS:,} pixels"
        )
    return width, height


def is_cut_short(path: Path) -> bool:
    """Whether an AVI, Matroska or GIF file is shorter than its structure states. Raises OSError."""
    size = path.stat().st_size
    with path.open("rb") as file:
        mark = file.read(4)
        file.seek(0)
        if mark == b"RIFF":
            return _avi(file, size)
        if mark == EBML_HEADER.to_bytes(4, "big"):
            return _matroska(file, size)
        if mark == b"GIF8":
            return _gif(file)
    return False


def _avi(file: BinaryIO, size: int) -> bool:
    stated = int.from_bytes(file.read(8)[4:], "little")
    return stated not in AVI_UNKNOWN and size < (stated + 8) * (1 - AVI_SLACK)


def _matroska(file: BinaryIO, size: int) -> bool:
    """The file is a header element and a segment element, each a 4-byte name, a size, a body."""
    for name in (EBML_HEADER, MATROSKA_SEGMENT):
        if int.from_bytes(file.read(4), "big") != name:
            return False
        stated = _ebml_size(file)
        if stated is None:  # a live recording, of unknown length
            return False
        end = file.tell() + stated
        if name == EBML_HEADER:
            file.seek(end)
        elif end > size:
            return True
    return False


def _ebml_size(file: BinaryIO) -> int | None:
    """The size of an element; None if unknown (all bits set).

    Big-endian. The leading zero bits of the first byte give the number of further bytes.
    """
    first = file.read(1)
    if not first or first[0] == 0:
        return None
    further = 8 - first[0].bit_length()
    value = (first[0] & (0x7F >> further)) << 8 * further | int.from_bytes(
        file.read(further), "big"
    )
    return None if value == (1 << 7 * (further + 1)) - 1 else value


def _gif(file: BinaryIO) -> bool:
    """Whether the file ends before its trailer. Stops at blocks of unknown kind."""
    screen = file.read(13)
    if len(screen) < 13:
        return True
    file.seek(_gif_palette(screen[10]), io.SEEK_CUR)
    while kind := file.read(1):
        if kind[0] == GIF_IMAGE:
            descriptor = file.read(9)
            if len(descriptor) < 9:
                return True
            file.seek(_gif_palette(descriptor[8]) + 1, io.SEEK_CUR)
        elif kind[0] == GIF_EXTENSION:
            file.seek(1, io.SEEK_CUR)
        else:
            return False
        while (length := file.read(1)) and length[0]:
            file.seek(length[0], io.SEEK_CUR)
    return True


def _gif_palette(flags: int) -> int:
    """Size of the colour table that follows, in bytes; 0 without one."""
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0

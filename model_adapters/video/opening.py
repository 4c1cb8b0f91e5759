"""Does a video file end before its own structure says that it should?

mp4 and mov need no help: their table of packets points beyond the end of a file that was cut, and demuxing fails. AVI,
Matroska (WebM) and GIF are read as far as they go, without a word, so a cut file would pass for a shorter video with
other frames. But AVI and Matroska state their size, and a GIF is a chain of blocks with a last one.

MPEG-TS, MPEG-PS, FLV and fragmented mp4 make no promise: cut files of these pass unless the cut went through a packet
that the demuxer then marks. Knows bytes only: no decoder, no packets.
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

MAX_PIXELS = 4096 * 4096  # width × height of one frame: 48 MiB as RGB
DEMUXERS = "mov,matroska,avi,gif,mpegts,mpeg,flv,ogg,asf"  # no playlists: they name other files or the network

AVI_SLACK = 0.01  # of the stated size: writers have been careless with the last bytes, which hold only an index
AVI_UNKNOWN = (0, 0xFFFFFFFF)  # left by recorders that never came back to fill it in
EBML_HEADER, MATROSKA_SEGMENT = 0x1A45DFA3, 0x18538067
GIF_IMAGE, GIF_EXTENSION = 0x2C, 0x21


class VideoError(MapflowError):
    """A clip that cannot be read: missing, broken, too large, too slow, or its bounds hold no frame."""


def unreadable(clip: Clip, reason: str) -> VideoError:
    return VideoError(f"video {clip.path!r}: {reason}")


@contextmanager
def open_clip(clip: Clip) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The clip's file and its best video stream. Errors of the file in the body become VideoErrors as well."""
    import av
    from av.error import FFmpegError

    # only `container_options`: with `options`, PyAV frees memory that is not its own on files without a header (flv)
    only = {"format_whitelist": DEMUXERS, "protocol_whitelist": "file"}
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
        # "file:" and an absolute path keep names such as "http:..." or "concat:..." what they are: names of files
        with av.open(
            f"file:{path.absolute()}", container_options=only, metadata_errors="replace"
        ) as container:
            stream = cast("VideoStream | None", container.streams.best("video"))
            if stream is None:
                raise unreadable(clip, "holds no video stream")
            if stream.codec_context is None:
                raise unreadable(clip, "no decoder for its video stream")
            frame_size(clip, stream)
            stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
            # More would decode past the wanted frames in vain: prefetching reads several clips at once instead.
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
    """True where a file that begins as AVI, Matroska or GIF does not hold all that it says. Raises OSError."""
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
    """The file is a header element and a segment; an element is a 4-byte name, a size, and as many bytes."""
    for name in (EBML_HEADER, MATROSKA_SEGMENT):
        if int.from_bytes(file.read(4), "big") != name:
            return False
        stated = _ebml_size(file)
        if stated is None:  # a live recording: it ends where it ends
            return False
        end = file.tell() + stated
        if name == EBML_HEADER:
            file.seek(end)
        elif end > size:
            return True
    return False


def _ebml_size(file: BinaryIO) -> int | None:
    """Big-endian; the zero bits before the first one of the first byte count further bytes; all ones is "unknown"."""
    first = file.read(1)
    if not first or first[0] == 0:
        return None
    further = 8 - first[0].bit_length()
    value = (first[0] & (0x7F >> further)) << 8 * further | int.from_bytes(
        file.read(further), "big"
    )
    return None if value == (1 << 7 * (further + 1)) - 1 else value


def _gif(file: BinaryIO) -> bool:
    """Walk the blocks to the trailer; what follows it does not matter, nor does anything after an unknown block."""
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
    """Bytes of the colour table that follows, 0 where there is none."""
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0

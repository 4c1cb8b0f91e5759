"""Does a file end before its own header says that it should?

mp4 and mov need no help: their table of packets points beyond the end of a file that was cut, and demuxing fails. AVI and
Matroska/WebM are read as far as they go, without a word, so a cut file would pass for a shorter video with other
frames. Their headers hold a promise to compare with: a size in bytes, a duration.

Headers are often a little wrong, so small differences pass. Cut GIF, MPEG-TS and fragmented mp4 files cannot be told
from whole ones unless the cut goes through a packet.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

    from mapflow.model_adapters.video_index import FrameIndex

TOLERATED_BYTES = 0.01  # of the promised size
TOLERATED_TIME, TOLERATED_SECONDS = 0.1, 0.5  # of the promised duration, and besides
UNKNOWN_SIZE = (0, 0xFFFFFFFF)  # written by recorders that never came back to fill it in


def missing_share(path: str, container: InputContainer, stream: VideoStream, index: FrameIndex) -> float:
    """The share in (0, 1] of the promised bytes or seconds that is not there; 0.0 where nothing (much) is missing."""
    if container.format.name == "avi":
        return _missing_bytes(path)
    if "matroska" in container.format.name:
        return _missing_time(container, stream, index)
    return 0.0


def _missing_bytes(path: str) -> float:
    with Path(path).open("rb") as file:
        mark, size = file.read(4), int.from_bytes(file.read(4), "little")
        there = file.seek(0, 2)
    promised = size + 8
    if mark != b"RIFF" or size in UNKNOWN_SIZE or there >= promised * (1 - TOLERATED_BYTES):
        return 0.0
    return 1 - there / promised


def _missing_time(container: InputContainer, stream: VideoStream, index: FrameIndex) -> float:
    promised = _stream_duration(container, stream)
    if promised is None or stream.time_base is None:
        return 0.0
    there = float((int(index.shown[-1]) - int(index.shown[0])) * stream.time_base)
    if there >= promised * (1 - TOLERATED_TIME) - TOLERATED_SECONDS:
        return 0.0
    return 1 - there / promised


def _stream_duration(container: InputContainer, stream: VideoStream) -> float | None:
    """Seconds: the stream's own DURATION tag ("00:00:10.333000000"), or the file's where no other stream shares it."""
    tag = re.fullmatch(r"(\d{1,4}):(\d\d):(\d\d(?:\.\d{1,9})?)", stream.metadata.get("DURATION", ""))
    if tag:
        return int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3])
    if len(container.streams) == 1 and container.duration is not None:
        return container.duration / 1_000_000
    return None

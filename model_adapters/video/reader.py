"""Read the sampled frames of a clip, exactly: frame i is the i-th frame that a viewer of the whole file would see.

One straight line: open the file -> count its frames (`video_index`) -> ask the sampling rule which are wanted -> decode
those -> RGB. Where the packet table can be trusted, decoding begins at the keyframe before each wanted frame, and every
frame that the decoder returns on the way is compared with the table; at the first surprise, or without a trustworthy
table, the file is decoded from its beginning and its frames are counted one by one.

Indices, frame rate, choice of stream and rotation are decord's, which the paper's code uses, and so are the pixels.
The differences, all outside constant-frame-rate files as cameras and ffmpeg write them: packets that give no picture
(edit lists, VP8's hidden frames) are not counted here.

Whatever goes wrong with a file is one VideoError; its message names the path and the reason. Knows nothing about models
and questions. PyAV is imported on first use, so that machines without it can import this module.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from jaxtyping import UInt8

from mapflow.model_adapters.video.decoding import (
    Surprise,
    decode_all,
    decode_from_keyframes,
    upright_rgb,
)
from mapflow.model_adapters.video.index import (
    MAX_FRAMES,
    DamagedPacket,
    FrameIndex,
    TooManyFrames,
    index_packets,
)
from mapflow.model_adapters.video.sampling import FrameSampling, check_bounds
from mapflow.model_adapters.video.time_limit import Clock, OutOfTime, run_within
from mapflow.model_adapters.video.truncation import is_cut_short
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import Clip

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

TIME_LIMIT = 180.0  # seconds a video; a minute of 1080p takes a few
MAX_PIXELS = 4096 * 4096  # width × height of one frame: 48 MiB as RGB
DEMUXERS = "mov,matroska,avi,gif,mpegts,mpeg,flv,ogg,asf"  # no playlists: they name other files or the network


class VideoError(MapflowError):
    """A clip that cannot be read: missing, broken, too large, too slow, or its bounds hold no frame."""


@dataclass(frozen=True)
class SampledFrames:
    """The frames that a sampling rule asked for, in the rule's order.

    pixels: RGB, upright.
    indices: each frame's number in presentation order, from 0; numbers recur where the clip is too short.
    timestamps: each frame's presentation time in the file, seconds; NaN where the file gives it none.
    fps: the stream's average frame rate; 0.0 where the file tells none.
    n_source: frames in the whole stream.
    stream: the stream's number in the file, as ffmpeg chooses it (a default track, more packets seen, a higher bit rate).
    """

    pixels: UInt8[np.ndarray, "frames height width 3"]
    indices: tuple[int, ...]
    timestamps: tuple[float, ...]
    fps: float
    n_source: int
    stream: int

    @property
    def repeated(self) -> int:
        """How many of the frames repeat another one, as the clip has fewer frames than were asked."""
        return len(self.indices) - len(set(self.indices))


def read_frames(
    clip: Clip, sampling: FrameSampling, n: int, *, time_limit: float = TIME_LIMIT
) -> SampledFrames:
    """Decode the `n` frames of `clip` that `sampling` names.

    time_limit: seconds; kept even when the decoder hangs (time_limit.py says what is guaranteed).

    Raises VideoError for anything wrong with the file or the bounds, MapflowError where PyAV is not installed.
    """
    if find_spec("av") is None:
        raise MapflowError("reading videos needs PyAV; install it with: pip install av")
    try:
        check_bounds(clip.start, clip.end)
        return run_within(time_limit, partial(_read, clip, sampling, n))
    except OutOfTime:
        raise _broken(
            clip, f"not read within {time_limit:g} s; allow it more time or leave it out"
        ) from None
    except VideoError:
        raise
    except MapflowError as error:  # from the sampling rule, which does not know the file
        raise _broken(clip, str(error)) from None
    except MemoryError:
        raise  # the machine's fault, and the run knows what to do
    except (
        Exception
    ) as error:  # whatever a file can do to a decoder costs its own questions, not the run
        raise _broken(clip, f"cannot be decoded ({type(error).__name__}: {error})") from error


def _read(clip: Clip, sampling: FrameSampling, n: int, clock: Clock) -> SampledFrames:
    with _opened(clip) as (container, stream):
        index = _index(clip, container, stream, clock)
        rate = stream.average_rate or stream.guessed_rate
        video = _Video(
            clip, float(rate or 0.0), stream.index, stream.time_base, _limited_size(clip, stream)
        )
        if not index.reliable:
            return _counted(video, len(index.shown), sampling, n, clock)
        indices = sampling(len(index.shown), video.fps, n, clip.start, clip.end)
        with suppress(Surprise):
            return _sought(video, container, stream, index, indices, clock)
    if index.unneeded.any():
        with _opened(clip) as (container, stream), suppress(Surprise):
            return _sought(video, container, stream, index.needing_all(), indices, clock)
    return _counted(video, len(index.shown), sampling, n, clock)


def _sought(
    video: _Video,
    container: InputContainer,
    stream: VideoStream,
    index: FrameIndex,
    indices: tuple[int, ...],
    clock: Clock,
) -> SampledFrames:
    """The frames of these numbers, as far as the table tells where they are. Raises Surprise."""
    found = _Found(video, indices)
    for number, frame in decode_from_keyframes(container, stream, index, indices, clock.check):
        found.add(number, frame)
    return found.sampled(len(index.shown))


def _counted(
    video: _Video, expected: int, sampling: FrameSampling, n: int, clock: Clock
) -> SampledFrames:
    """The wanted frames among all, where only decoding all can tell. `expected`: how many the packets promise."""
    clip = video.clip
    for _ in range(2):  # the second time only where packets and frames do not agree in number
        found = _Found(video, sampling(expected, video.fps, n, clip.start, clip.end))
        count = 0
        with _opened(clip) as (container, stream):
            for frame in decode_all(container, stream, clock.check):
                found.add(count, frame)
                count += 1
        if count == expected:
            return found.sampled(count)
        if count == 0:
            raise _broken(clip, "holds no frame that decodes")
        expected = count
    raise _broken(clip, "does not decode to the same frames twice")


@dataclass(frozen=True)
class _Video:
    """What is known of the stream before its frames are decoded."""

    clip: Clip
    fps: float
    stream: int
    time_base: Fraction | None
    size: tuple[int, int]

    def picture(self, frame: VideoFrame) -> tuple[np.ndarray, float]:
        seconds = math.nan
        if frame.pts is not None and self.time_base is not None:
            seconds = float(frame.pts * self.time_base)
        if frame.is_corrupt:
            raise _broken(
                self.clip, f"damaged at {seconds:.3f} s: the decoder marks that frame as corrupt"
            )
        return upright_rgb(frame, *self.size), seconds


class _Found:
    """Wanted frames as they come. Each goes straight to its places in the result: a full-size picture is not held twice."""

    def __init__(self, video: _Video, indices: tuple[int, ...]) -> None:
        self._video, self._indices = video, indices
        self._pixels: np.ndarray | None = None
        self._seconds: dict[int, float] = {}
        self._places: dict[int, list[int]] = {}
        for place, index in enumerate(indices):
            self._places.setdefault(index, []).append(place)

    def add(self, number: int, frame: VideoFrame) -> None:
        """A frame of that number, wanted or not."""
        if number not in self._places:
            return
        picture, self._seconds[number] = self._video.picture(frame)
        if self._pixels is None:
            self._pixels = np.empty((len(self._indices), *picture.shape), np.uint8)
        self._pixels[self._places[number]] = picture

    def sampled(self, count: int) -> SampledFrames:
        """The result, of a stream of `count` frames, once all that are wanted have come."""
        timestamps = tuple(self._seconds[index] for index in self._indices)
        assert self._pixels is not None
        return SampledFrames(
            pixels=self._pixels,
            indices=self._indices,
            timestamps=timestamps,
            fps=self._video.fps,
            n_source=count,
            stream=self._video.stream,
        )


@contextmanager
def _opened(clip: Clip) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The clip's file and its best video stream. Errors of the file in the body become VideoErrors as well."""
    import av
    from av.error import FFmpegError

    # only `container_options`: with `options`, PyAV frees memory that is not its own on files without a header (flv)
    only = {"format_whitelist": DEMUXERS, "protocol_whitelist": "file"}
    doing = "opened"
    try:
        path = Path(clip.path)
        if not path.is_file():
            raise _broken(clip, "not a file" if path.exists() else "no such file")
        if path.stat().st_size == 0:
            raise _broken(clip, "the file is empty (0 bytes)")
        if is_cut_short(path):
            raise _broken(clip, "truncated: it ends before the size that its own structure states")
        # "file:" and an absolute path keep names such as "http:..." or "concat:..." what they are: names of files
        with av.open(
            f"file:{path.absolute()}", container_options=only, metadata_errors="replace"
        ) as container:
            stream = cast("VideoStream | None", container.streams.best("video"))
            if stream is None:
                raise _broken(clip, "holds no video stream")
            if stream.codec_context is None:
                raise _broken(clip, "no decoder for its video stream")
            _limited_size(clip, stream)
            stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
            # More would decode past the wanted frames in vain: prefetching reads several clips at once instead.
            stream.codec_context.thread_count = 1
            doing = "decoded"
            yield container, stream
    except (FFmpegError, OSError) as error:
        raise _broken(
            clip, f"cannot be {doing} ({error.strerror}); the file is damaged or no video"
        ) from None


def _limited_size(clip: Clip, stream: VideoStream) -> tuple[int, int]:
    width, height = stream.codec_context.width, stream.codec_context.height
    if width < 1 or height < 1:
        raise _broken(clip, f"its frames have no size ({width}×{height})")
    if width * height > MAX_PIXELS:
        raise _broken(
            clip, f"too large: frames of {width}×{height}, more than {MAX_PIXELS:,} pixels"
        )
    return width, height


def _index(clip: Clip, container: InputContainer, stream: VideoStream, clock: Clock) -> FrameIndex:
    too_long = f"too long: more than {MAX_FRAMES:,} frames"
    if stream.frames > MAX_FRAMES:
        raise _broken(clip, f"{too_long}; its header promises {stream.frames:,}")
    try:
        index = index_packets(
            container.demux(stream),
            stream.codec_context.name,
            container.format.name,
            clock.check,
            stream.codec_context.extradata,
        )
    except TooManyFrames:
        raise _broken(clip, too_long) from None
    except DamagedPacket as damaged:
        raise _broken(clip, f"truncated or damaged: packet {damaged} is incomplete") from None
    if len(index.shown) == 0:
        raise _broken(clip, "holds no frames")
    return index


def _broken(clip: Clip, reason: str) -> VideoError:
    return VideoError(f"video {clip.path!r}: {reason}")

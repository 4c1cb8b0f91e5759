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
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, TypeVar

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
from mapflow.model_adapters.video.opening import VideoError, frame_size, open_clip, unreadable
from mapflow.model_adapters.video.sampling import FrameSampling, check_bounds
from mapflow.results.contract.archives import unpack_clip
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import Clip

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

TIME_LIMIT = 180.0  # seconds a video; a minute of 1080p takes a few
GRACE_SECONDS = 1.0  # time for the work's own check to speak first: it can name what it was doing

Result = TypeVar("Result")


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
        unpack_clip(clip)
        return run_within(time_limit, partial(_read, clip, sampling, n))
    except OutOfTime:
        raise unreadable(
            clip, f"not read within {time_limit:g} s; allow it more time or leave it out"
        ) from None
    except VideoError:
        raise
    except MapflowError as error:  # from the sampling rule or the zip file
        raise unreadable(clip, str(error)) from None
    except MemoryError:
        raise  # the machine's fault, and the run knows what to do
    except (
        Exception
    ) as error:  # whatever a file can do to a decoder costs its own questions, not the run
        raise unreadable(clip, f"cannot be decoded ({type(error).__name__}: {error})") from error


def _read(clip: Clip, sampling: FrameSampling, n: int, clock: Clock) -> SampledFrames:
    with open_clip(clip) as (container, stream):
        index = _index(clip, container, stream, clock)
        rate = stream.average_rate or stream.guessed_rate
        video = _Video(
            clip, float(rate or 0.0), stream.index, stream.time_base, frame_size(clip, stream)
        )
        if not index.reliable:
            return _counted(video, len(index.shown), sampling, n, clock)
        indices = sampling(len(index.shown), video.fps, n, clip.start, clip.end)
        with suppress(Surprise):
            return _sought(video, container, stream, index, indices, clock)
    if index.unneeded.any():
        with open_clip(clip) as (container, stream), suppress(Surprise):
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
        with open_clip(clip) as (container, stream):
            for frame in decode_all(container, stream, clock.check):
                found.add(count, frame)
                count += 1
        if count == expected:
            return found.sampled(count)
        if count == 0:
            raise unreadable(clip, "holds no frame that decodes")
        expected = count
    raise unreadable(clip, "does not decode to the same frames twice")


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
            raise unreadable(
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


def _index(clip: Clip, container: InputContainer, stream: VideoStream, clock: Clock) -> FrameIndex:
    too_long = f"too long: more than {MAX_FRAMES:,} frames"
    if stream.frames > MAX_FRAMES:
        raise unreadable(clip, f"{too_long}; its header promises {stream.frames:,}")
    try:
        index = index_packets(
            container.demux(stream),
            stream.codec_context.name,
            container.format.name,
            clock.check,
            stream.codec_context.extradata,
        )
    except TooManyFrames:
        raise unreadable(clip, too_long) from None
    except DamagedPacket as damaged:
        raise unreadable(clip, f"truncated or damaged: packet {damaged} is incomplete") from None
    if len(index.shown) == 0:
        raise unreadable(clip, "holds no frames")
    return index


class OutOfTime(Exception):
    """The work did not end within its limit."""


@dataclass(frozen=True)
class Clock:
    """A point in time (of `time.monotonic`) after which the work should stop."""

    ends_at: float

    def check(self) -> None:
        """Raise OutOfTime when time is up."""
        if time.monotonic() >= self.ends_at:
            raise OutOfTime


def run_within(seconds: float, work: Callable[[Clock], Result]) -> Result:
    """`work(clock)`, its result or its exception; OutOfTime after `seconds` (+ GRACE_SECONDS where it never checks)."""
    clock = Clock(time.monotonic() + seconds)
    answers: queue.SimpleQueue[tuple[Result | None, BaseException | None]] = queue.SimpleQueue()

    def worker() -> None:
        try:
            answers.put((work(clock), None))
        except BaseException as error:  # handed over to the caller's thread, whatever it is
            answers.put((None, error))

    threading.Thread(target=worker, name="mapflow-time-limit", daemon=True).start()
    try:
        result, error = answers.get(timeout=max(0.0, seconds) + GRACE_SECONDS)
    except queue.Empty:
        raise OutOfTime from None
    if error is not None:
        raise error
    return result  # type: ignore[return-value]

"""Reads the sampled frames of a clip.

Frame i is the i-th frame that a viewer of the whole file sees. The steps: open the file
(`opening`), count its frames (`index`), ask the sampling rule for frame numbers (`sampling`),
decode these frames to RGB (`decoding`).

If the packet table is reliable, decoding begins at the keyframe before each wanted frame, and each
decoded frame is compared with the table. At the first difference, or without a reliable table, the
file is decoded from its beginning and its frames are counted.

Indices, frame rate, stream selection, rotation and pixels equal those of decord, which the authors'
code uses. One
exception: packets without a picture (edit lists, hidden frames of VP8) are not counted here. Files
of constant frame rate, as cameras and ffmpeg write them, have no such packets.

Every problem of a file raises VideoError, whose message names the path and the reason. PyAV is
imported on first use, so that machines without it can import this module.
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
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
from jaxtyping import UInt8

from mapflow.model_adapters.video.decoding import (
    UnexpectedFrame,
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

TIME_LIMIT = 180.0
"""Seconds per video. One minute of 1080p takes a few seconds."""

GRACE_SECONDS = 1.0
"""Additional time in which the work itself may raise, with a more specific message."""

Result = TypeVar("Result")
Collected = TypeVar("Collected", covariant=True)


@dataclass(frozen=True)
class SampledFrames:
    """The frames that a sampling rule selects, in the rule's order.

    pixels: RGB, upright.
    indices: number of each frame in presentation order, from 0. Short clips repeat numbers.
    timestamps: presentation time of each frame in seconds; NaN if the file has none.
    fps: average frame rate of the stream; 0.0 if unknown.
    n_source: number of frames in the whole stream.
    stream: number of the stream in the file. ffmpeg chooses it by default flag, packets seen and
    bit rate.
    """

    pixels: UInt8[np.ndarray, "frames height width 3"]
    indices: tuple[int, ...]
    timestamps: tuple[float, ...]
    fps: float
    n_source: int
    stream: int

    @property
    def repeated(self) -> int:
        """Number of frames that repeat another one, because the clip is too short."""
        return len(self.indices) - len(set(self.indices))


def read_frames(
    clip: Clip, sampling: FrameSampling, n: int, *, time_limit: float = TIME_LIMIT
) -> SampledFrames:
    """Decodes the `n` frames of `clip` that `sampling` selects.

    time_limit: in seconds, enforced even if the decoder hangs (`run_within` states the guarantee).

    Raises VideoError for any problem of the file or the bounds, MapflowError if PyAV is not
    installed.
    """
    return collect_frames(clip, sampling, n, FrameArray, time_limit)


def collect_frames(
    clip: Clip,
    sampling: FrameSampling,
    n: int,
    collector: Callable[[SourceVideo, tuple[int, ...]], FrameCollector[Result]],
    time_limit: float,
) -> Result:
    """Passes the frames that `sampling` selects to a collector; returns its result.

    `collector` makes one from the video and the frames' numbers. It is called again, for a new
    collector, if a first way of decoding proves inexact. Raises as `read_frames`.
    """
    if find_spec("av") is None:
        raise MapflowError("reading videos needs PyAV; install it with: pip install av")
    try:
        check_bounds(clip.start, clip.end)
        unpack_clip(clip)
        return run_within(time_limit, partial(_read, clip, sampling, n, collector))
    except OutOfTime:
        raise unreadable(
            clip, f"not read within {time_limit:g} s; allow it more time or leave it out"
        ) from None
    except VideoError:
        raise
    except MapflowError as error:  # from the sampling rule or the zip file
        raise unreadable(clip, str(error)) from None
    except MemoryError:
        raise  # not the file's fault; the caller handles it
    except Exception as error:  # a bad file fails its own questions, not the whole experiment
        raise unreadable(clip, f"cannot be decoded ({type(error).__name__}: {error})") from error


def _read(
    clip: Clip,
    sampling: FrameSampling,
    n: int,
    collector: Callable[[SourceVideo, tuple[int, ...]], FrameCollector[Result]],
    clock: Clock,
) -> Result:
    with open_clip(clip) as (container, stream):
        index = _index(clip, container, stream, clock)
        rate = stream.average_rate or stream.guessed_rate
        video = SourceVideo(clip, rate, stream.index, stream.time_base, frame_size(clip, stream))
        if not index.reliable:
            return _counted(video, len(index.shown), sampling, n, collector, clock)
        indices = sampling(len(index.shown), video.fps, n, clip.start, clip.end)
        with suppress(UnexpectedFrame):
            return _sought(collector(video, indices), container, stream, index, indices, clock)
    if index.skippable.any():
        with open_clip(clip) as (container, stream), suppress(UnexpectedFrame):
            whole = index.without_skipping()
            return _sought(collector(video, indices), container, stream, whole, indices, clock)
    return _counted(video, len(index.shown), sampling, n, collector, clock)


def _sought(
    found: FrameCollector[Result],
    container: InputContainer,
    stream: VideoStream,
    index: FrameIndex,
    indices: tuple[int, ...],
    clock: Clock,
) -> Result:
    """Decodes the frames with these numbers from their keyframes. Raises UnexpectedFrame."""
    for number, frame in decode_from_keyframes(container, stream, index, indices, clock.check):
        found.add(number, frame)
    return found.result(len(index.shown))


def _counted(
    video: SourceVideo,
    expected: int,
    sampling: FrameSampling,
    n: int,
    collector: Callable[[SourceVideo, tuple[int, ...]], FrameCollector[Result]],
    clock: Clock,
) -> Result:
    """Decodes all frames and counts them. `expected`: their number according to the packets."""
    clip = video.clip
    for _ in range(2):  # again with the true count if packets and frames differ in number
        found = collector(video, sampling(expected, video.fps, n, clip.start, clip.end))
        count = 0
        with open_clip(clip) as (container, stream):
            for frame in decode_all(container, stream, clock.check):
                found.add(count, frame)
                count += 1
        if count == expected:
            return found.result(count)
        if count == 0:
            raise unreadable(clip, "holds no frame that decodes")
        expected = count
    raise unreadable(clip, "does not decode to the same frames twice")


@dataclass(frozen=True)
class SourceVideo:
    """Properties of the stream that are known before its frames are decoded.

    rate: average frames per second; None if unknown. size: (width, height) in pixels.
    """

    clip: Clip
    rate: Fraction | None
    stream: int
    time_base: Fraction | None
    size: tuple[int, int]

    @property
    def fps(self) -> float:
        """`rate` as a number; 0.0 if unknown."""
        return float(self.rate or 0.0)

    def seconds(self, frame: VideoFrame) -> float:
        """The frame's time; NaN if it has none. Raises VideoError for a damaged frame."""
        seconds = math.nan
        if frame.pts is not None and self.time_base is not None:
            seconds = float(frame.pts * self.time_base)
        if frame.is_corrupt:
            raise unreadable(
                self.clip, f"damaged at {seconds:.3f} s: the decoder marks that frame as corrupt"
            )
        return seconds

    def picture(self, frame: VideoFrame) -> tuple[np.ndarray, float]:
        """RGB pixels and seconds of a frame. Raises as `seconds`."""
        seconds = self.seconds(frame)
        return upright_rgb(frame, *self.size), seconds


class FrameCollector(Protocol[Collected]):
    """Takes the frames of a video, in presentation order, and makes something of them."""

    def add(self, number: int, frame: VideoFrame) -> None:
        """Takes the frame of this number; frames that were not selected may come too."""
        ...

    def result(self, count: int) -> Collected:
        """The result, once all selected frames have been added. `count`: frames in the stream."""
        ...


class FrameArray:
    """Collects frames as an array, written directly into the result to save memory."""

    def __init__(self, video: SourceVideo, indices: tuple[int, ...]) -> None:
        self._video, self._indices = video, indices
        self._pixels: np.ndarray | None = None
        self._seconds: dict[int, float] = {}
        self._places: dict[int, list[int]] = {}
        for place, index in enumerate(indices):
            self._places.setdefault(index, []).append(place)

    def add(self, number: int, frame: VideoFrame) -> None:
        """Stores the frame of this number if it is wanted."""
        if number not in self._places:
            return
        picture, self._seconds[number] = self._video.picture(frame)
        if self._pixels is None:
            self._pixels = np.empty((len(self._indices), *picture.shape), np.uint8)
        self._pixels[self._places[number]] = picture

    def result(self, count: int) -> SampledFrames:
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
    """The work did not end within its time limit."""


@dataclass(frozen=True)
class Clock:
    """A deadline, as a value of `time.monotonic`."""

    ends_at: float

    def check(self) -> None:
        """Raises OutOfTime after the deadline."""
        if time.monotonic() >= self.ends_at:
            raise OutOfTime


def run_within(seconds: float, work: Callable[[Clock], Result]) -> Result:
    """Returns the result of `work(clock)`, or raises its exception, or OutOfTime after `seconds`.

    A hang inside a decoder cannot be interrupted from Python, so the work runs in a thread and is
    bounded twice:

    - The work calls `Clock.check` between its steps, which ends slow work at the next step.
    - If a step hangs, this function stops waiting after GRACE_SECONDS more and abandons the thread.
      The thread keeps
      its memory until the step returns, does not keep the process from exiting, and its result is
      dropped.

    This holds as long as the foreign code releases Python's lock. PyAV does while demuxing,
    decoding and converting.
    """
    clock = Clock(time.monotonic() + seconds)
    answers: queue.SimpleQueue[tuple[Result | None, BaseException | None]] = queue.SimpleQueue()

    def worker() -> None:
        try:
            answers.put((work(clock), None))
        except BaseException as error:  # passed to the caller's thread
            answers.put((None, error))

    threading.Thread(target=worker, name="mapflow-time-limit", daemon=True).start()
    try:
        result, error = answers.get(timeout=max(0.0, seconds) + GRACE_SECONDS)
    except queue.Empty:
        raise OutOfTime from None
    if error is not None:
        raise error
    return result  # type: ignore[return-value]

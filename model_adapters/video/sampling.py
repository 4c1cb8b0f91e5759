"""Sampling rules: which frames of a video a model sees. Each rule is a pure function.

A rule maps the video's number of frames, its frame rate, the number of frames wanted and optional
bounds in seconds to frame indices in presentation order. The paper uses two rules:
`segment_midpoints` for the LLaVA and InternVL families, `trimmed_linspace` for VideoLLaMA3. Both
repeat frames of a video that has fewer frames than wanted, as the authors' code does.
"""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

import numpy as np

from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.visible_text import counted

FRAME_TOLERANCE = 1e-6
"""In frames. A bound that equals a frame's time (12 / 29.97 s) must not be rounded past that
frame."""


@runtime_checkable
class FrameSampling(Protocol):
    """A sampling rule: returns `n` non-decreasing indices in [0, n_frames).

    `fps` is in frames per second, `start` and `end` are in seconds. Raises MapflowError naming the
    bounds if they contain no frame.
    """

    def __call__(
        self,
        n_frames: int,
        fps: float,
        n: int,
        start: float | None = None,
        end: float | None = None,
    ) -> tuple[int, ...]: ...


def check_bounds(start: float | None, end: float | None) -> None:
    """Raises MapflowError for bounds that are not finite, end at or before 0 or are not ordered.

    A negative `start` means the beginning of the video (`max(0, ...)` in the authors' code).
    """
    for name, value in (("start", start), ("end", end)):
        if value is not None and not math.isfinite(value):
            raise MapflowError(
                f"clip bound {name}={value} is not a number of seconds; give a finite one or none"
            )
    if end is not None and end <= 0:
        raise MapflowError(
            f"clip bound end={end} s lies before the video begins; give a positive one or none"
        )
    if start is not None and end is not None and start >= end:
        raise MapflowError(f"clip bounds start={start} s, end={end} s: start must come before end")


def segment_midpoints(
    n_frames: int, fps: float, n: int, start: float | None = None, end: float | None = None
) -> tuple[int, ...]:
    """The paper's rule for LLaVA and InternVL: n equal segments, about the middle frame of each.

        first = max(0, round(start · fps))              0 without `start`
        last  = min(round(end · fps), n_frames - 1)     n_frames - 1 without `end`
        seg   = (last - first) / n
        i_k   = int(first + seg / 2 + round(seg · k))   k = 0 … n - 1

    `round` rounds halves to even. Every i_k is in [first, last].
    """
    _check_request(n_frames, fps, n, start, end)
    first, last = _rounded_bounds(n_frames, fps, start, end)
    segment = (last - first) / n
    return tuple(int(first + segment / 2 + round(segment * k)) for k in range(n))


def every_frame_within(
    n_frames: int, fps: float, n: int, start: float | None = None, end: float | None = None
) -> tuple[int, ...]:
    """All frames from `first` to `last` of `segment_midpoints`, whatever `n` is.

    So `segment_midpoints` of these frames, without bounds, selects the pictures that it selects of
    the whole video with bounds.
    """
    _check_request(n_frames, fps, n, start, end)
    first, last = _rounded_bounds(n_frames, fps, start, end)
    return tuple(range(first, last + 1))


def _rounded_bounds(
    n_frames: int, fps: float, start: float | None, end: float | None
) -> tuple[int, int]:
    first = 0 if start is None else max(0, round(start * fps))
    last = n_frames - 1 if end is None else min(round(end * fps), n_frames - 1)
    _check_inside(first, n_frames, fps, start, end)
    return first, last


def trimmed_linspace(
    n_frames: int, fps: float, n: int, start: float | None = None, end: float | None = None
) -> tuple[int, ...]:
    """VideoLLaMA3's rule: n evenly spaced frames of those that begin within the bounds.

        first = max(0, ceil(start · fps))                   the first frame with time i / fps >=
        start last  = min(ceil(end · fps) - 1, n_frames - 1)      the last frame with time i / fps <
        end i_k   = first + linspace(0, last - first, n, dtype=int)[k]      (rounded down)

    The first and the last of these frames are included. If no frame begins within the bounds, the
    rule returns the first frame after `start`.
    """
    _check_request(n_frames, fps, n, start, end)
    first = 0 if start is None else max(0, math.ceil(start * fps - FRAME_TOLERANCE))
    last = (
        n_frames - 1
        if end is None
        else min(math.ceil(end * fps - FRAME_TOLERANCE) - 1, n_frames - 1)
    )
    _check_inside(first, n_frames, fps, start, end)
    offsets = np.linspace(0, max(last - first, 0), n, dtype=int)
    return tuple(first + int(offset) for offset in offsets)


def _check_request(
    n_frames: int, fps: float, n: int, start: float | None, end: float | None
) -> None:
    if n < 1:
        raise MapflowError(f"cannot sample {n} frames: ask for at least 1")
    if n_frames < 1:
        raise MapflowError(f"cannot sample from a video of {counted(n_frames, 'frame')}")
    check_bounds(start, end)
    if (start is not None or end is not None) and not (math.isfinite(fps) and fps > 0):
        raise MapflowError(
            f"clip bounds need a frame rate, but the video's is {fps}; give no bounds for it"
        )


def _check_inside(
    first: int, n_frames: int, fps: float, start: float | None, end: float | None
) -> None:
    if first >= n_frames:
        raise MapflowError(
            f"clip bounds start={start} s, end={end} s begin after the last frame"
            f" ({counted(n_frames, 'frame')} at {fps:g} a second end at {n_frames / fps:.3f} s)"
        )


def stated_seconds(
    n_frames: int,
    fps: float,
    n: int,
    start: float | None = None,
    end: float | None = None,
    *,
    duration: float,
) -> tuple[int, ...]:
    """Frames 0, s, 2s, … of LongVideoBench, by the length in seconds that its questions state.

    As in the authors' code: at most one frame per whole second, s is the frames in `duration`
    divided by their number, and the last one is repeated. Raises MapflowError for a duration below
    one second and for one that the video does not have. `start` and `end` must be None.
    """
    assert start is None and end is None
    wanted = min(n, int(duration))
    if wanted < 1:
        raise MapflowError(f"stated duration {duration} s holds no whole second")
    step = int(int(duration * fps) / wanted)
    indices = [step * number for number in range(wanted)]
    if indices[-1] >= n_frames:
        raise MapflowError(
            f"stated duration {duration} s asks for frame {indices[-1]}, the video has {n_frames}"
        )
    return tuple(indices + indices[-1:] * (n - wanted))

"""The sampling rules against direct transcriptions of their formulas, and their properties."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapflow.model_adapters.video.sampling import segment_midpoints, trimmed_linspace
from mapflow.results.contract.errors import MapflowError

RULES = (segment_midpoints, trimmed_linspace)
FRAME_RATES = st.sampled_from(
    [1.0, 10.0, 15.0, 23.976, 24000 / 1001, 25.0, 29.97, 30000 / 1001, 30.0, 60.0]
)
frames_asked = st.integers(1, 64)
video_lengths = st.integers(1, 5000)


@st.composite
def bounded(draw):
    """A video and bounds of which at least the start is inside the video."""
    n_frames, fps = draw(video_lengths), draw(FRAME_RATES)
    seconds = n_frames / fps
    start = draw(st.floats(0, max(0.0, (n_frames - 1) / fps)))
    length = draw(st.floats(1e-3, seconds + 10))
    return n_frames, fps, start, start + length


def papers_indices(n_frames, fps, n, start, end):
    """The paper's formula in numpy. The authors' code uses -100000 s … 100000 s for "no bounds"."""
    start, end = (-100000, 100000) if start is None else (start, end)
    first, last = max(0, round(start * fps)), min(round(end * fps), n_frames - 1)
    segment = float(last - first) / n
    return np.array([int(first + (segment / 2) + np.round(segment * k)) for k in range(n)]).tolist()


@given(video_lengths, FRAME_RATES, frames_asked)
def test_segment_midpoints_without_bounds(n_frames, fps, n):
    assert list(segment_midpoints(n_frames, fps, n)) == papers_indices(n_frames, fps, n, None, None)


@given(bounded(), frames_asked)
def test_segment_midpoints_within_bounds(video, n):
    n_frames, fps, start, end = video
    if round(start * fps) < n_frames:
        assert list(segment_midpoints(n_frames, fps, n, start, end)) == papers_indices(
            n_frames, fps, n, start, end
        )


def test_segment_midpoints_by_hand():
    # first 0, last 99, segment 12.375: 6.1875 + round(0, 12.375, 24.75, 37.125, 49.5 -> 50, …)
    assert segment_midpoints(100, 25.0, 8) == (6, 18, 31, 43, 56, 68, 80, 93)
    # 2 s … 3 s at 25: first 50, last 75, segment 3.125
    assert segment_midpoints(100, 25.0, 8, 2.0, 3.0) == (51, 54, 57, 60, 63, 67, 70, 73)


@given(video_lengths, frames_asked)
def test_trimmed_linspace_spreads_over_all_frames(n_frames, n):
    exact = [Fraction(n_frames - 1, n - 1) * k if n > 1 else Fraction(0) for k in range(n)]
    got = trimmed_linspace(n_frames, 30.0, n)
    # numpy's step is a float: an exact integer may round down to the frame before, as in the
    # authors' code
    assert all(
        i == math.floor(x) or (x.denominator == 1 and i == x - 1)
        for i, x in zip(got, exact, strict=True)
    )
    assert list(got) == np.linspace(0, n_frames - 1, n, dtype=int).tolist()


@given(bounded(), frames_asked)
def test_trimmed_linspace_is_linspace_over_the_frames_that_begin_inside(video, n):
    n_frames, fps, start, end = video
    inside = [i for i in range(n_frames) if start - 1e-6 / fps <= i / fps < end - 1e-6 / fps]
    if inside:
        expected = [inside[k] for k in np.linspace(0, len(inside) - 1, n, dtype=int)]
        assert list(trimmed_linspace(n_frames, fps, n, start, end)) == expected


def test_trimmed_linspace_bounds_on_a_frames_time_include_it_at_the_start_and_not_at_the_end():
    for fps in (29.97, 30000 / 1001, 23.976):
        for i in range(1, 400):
            assert trimmed_linspace(1000, fps, 1, i / fps, 30.0)[0] == i
            assert trimmed_linspace(1000, fps, 2, 0.0, i / fps)[-1] == i - 1


def test_trimmed_linspace_between_two_frames_takes_the_next():
    assert trimmed_linspace(100, 10.0, 3, 1.01, 1.05) == (11, 11, 11)


@given(bounded(), frames_asked, st.sampled_from(RULES))
def test_indices_lie_inside_and_never_decrease(video, n, rule):
    n_frames, fps, start, end = video
    for bounds in ((None, None), (start, end), (start, None), (None, end)):
        try:
            indices = rule(n_frames, fps, n, *bounds)
        except (
            MapflowError
        ):  # only a start in the second half of the last frame, which rounds beyond the end
            assert bounds[0] is not None and math.ceil(start * fps - 1e-6) >= n_frames - 1
            continue
        assert len(indices) == n
        assert all(
            0 <= a <= b < n_frames
            for a, b in zip(indices, (*indices[1:], indices[-1]), strict=True)
        )
        assert all(type(i) is int for i in indices)


@pytest.mark.parametrize("rule", RULES)
def test_short_videos_repeat_frames(rule):
    assert set(rule(1, 25.0, 8)) == {0}
    assert set(rule(3, 25.0, 8)) == {0, 1, 2}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("start", "end", "named"),
    [
        (2.0, 2.0, "start=2.0 s, end=2.0 s"),
        (3.0, 2.0, "start=3.0 s, end=2.0 s"),
        (math.nan, 2.0, "start=nan"),
        (0.0, math.nan, "end=nan"),
        (-math.inf, 2.0, "start=-inf"),
        (0.0, math.inf, "end=inf"),
        (-3.0, -1.0, "end=-1.0"),
        (None, 0.0, "end=0.0"),
        (4.0, 9.0, "begin after the last frame"),
        (4.5, None, "begin after the last frame"),
    ],
)
def test_bounds_without_a_frame_are_refused(rule, start, end, named):
    with pytest.raises(MapflowError) as refused:
        rule(100, 25.0, 8, start, end)
    assert named in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("rule", RULES)
def test_bounds_reach_beyond_the_video_are_cut_to_it(rule):
    assert rule(100, 25.0, 8, -5.0, 900.0) == rule(100, 25.0, 8)


@pytest.mark.parametrize("rule", RULES)
def test_bounds_need_a_frame_rate_and_nothing_else_does(rule):
    for fps in (0.0, -1.0, math.nan, math.inf):
        assert rule(100, fps, 8) == rule(100, 25.0, 8)
        with pytest.raises(MapflowError, match="frame rate"):
            rule(100, fps, 8, 0.0, 1.0)


@pytest.mark.parametrize("rule", RULES)
def test_impossible_requests_are_refused(rule):
    with pytest.raises(MapflowError, match="at least 1"):
        rule(100, 25.0, 0)
    with pytest.raises(MapflowError, match="0 frames"):
        rule(0, 25.0, 8)

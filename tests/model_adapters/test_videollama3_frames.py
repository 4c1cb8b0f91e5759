"""What VideoLLaMA3 makes of frames before any network: their size, their patches, and the times
that are told."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mapflow.model_adapters.families.videollama3.model import told_times
from mapflow.model_adapters.families.videollama3.pixels import PatchPreprocessing
from mapflow.model_adapters.video.reader import SampledFrames, VideoError
from mapflow.results.contract.question import Clip

PREPROCESSING = PatchPreprocessing(
    patch=7, mean=(0.5, 0.4, 0.3), std=(0.25, 0.3, 0.35), min_tokens=4, max_tokens=400
)


@given(
    n=st.integers(1, 40),
    height=st.integers(8, 2000),
    width=st.integers(8, 2000),
    merge=st.sampled_from([1, 2]),
)
def test_target_sizes(n, height, width, merge):
    """Whole video tokens, at least `min_tokens` a frame, and within the clip's budget where that
    leaves so many."""
    preprocessing = replace(PREPROCESSING, merge=merge)
    new_height, new_width = preprocessing.target_size(n, height, width)
    step = 7 * merge
    assert new_height % step == new_width % step == 0
    tokens = new_height * new_width // step**2
    assert tokens >= preprocessing.min_tokens
    rounded = max(1, round(height / step)) * max(1, round(width / step))
    if tokens > max(preprocessing.min_tokens, 400 / n):
        # only a thin frame's rounding up to the least number of tokens may exceed the budget
        assert min(new_height, new_width) <= step * math.ceil(math.sqrt(preprocessing.min_tokens))
    if preprocessing.min_tokens <= rounded <= 400 // n and min(height, width) >= step:
        assert (new_height, new_width) == (round(height / step) * step, round(width / step) * step)


def test_patches_by_loops():
    frames = np.random.default_rng(0).integers(0, 256, (2, 50, 70, 3), dtype=np.uint8)
    patches, (n, rows, columns) = PREPROCESSING(frames)
    assert (n, rows, columns) == (2, 8, 10)
    expected = []
    for frame in frames:
        pixels = (
            np.asarray(Image.fromarray(frame).resize((70, 56), Image.Resampling.BICUBIC)) / 255.0
        )
        pixels = (pixels - PREPROCESSING.mean) / PREPROCESSING.std
        for top in range(0, 56, 14):
            for left in range(0, 70, 14):
                for y in (top, top + 7):
                    for x in (left, left + 7):
                        expected.append(pixels[y : y + 7, x : x + 7].transpose(2, 0, 1).ravel())
    np.testing.assert_allclose(patches.numpy(), np.stack(expected), rtol=0, atol=1e-6)


def sampled(indices: tuple[int, ...], fps: float, n_source: int) -> SampledFrames:
    pixels = np.zeros((len(indices), 2, 2, 3), dtype=np.uint8)
    return SampledFrames(pixels, indices, (math.nan,) * len(indices), fps, n_source, 0)


def test_told_times_lie_evenly_between_both_ends():
    assert told_times(sampled((0, 33, 66, 99), 25.0, 100), Clip("x")) == pytest.approx(
        [0, 4 / 3, 8 / 3, 4]
    )
    within = told_times(sampled((50, 62, 74), 25.0, 100), Clip("x", start=2.0, end=3.0))
    assert within == pytest.approx([2.0, 2.5, 3.0])
    beyond = told_times(sampled((50, 74, 99), 25.0, 100), Clip("x", start=2.0, end=9.0))
    assert beyond == pytest.approx([2.0, 2 + 2 * 24 / 49, 4.0])
    assert told_times(sampled((7, 7), 25.0, 100), Clip("x", start=0.28, end=0.3)) == pytest.approx(
        [0.28, 0.28]
    )


@given(
    fps=st.floats(1, 60),
    n_source=st.integers(2, 500),
    n=st.integers(2, 16),
)
def test_told_times_are_the_released_linspace(fps, n_source, n):
    """The authors' code spreads times over all frames and then picks; here they are computed for
    the picked alone."""
    chosen = np.linspace(0, n_source - 1, n, dtype=int)
    spread = np.linspace(0, n_source / fps, n_source)[chosen]
    ours = told_times(sampled(tuple(chosen.tolist()), fps, n_source), Clip("x"))
    np.testing.assert_allclose(ours, spread, rtol=1e-9, atol=1e-9)


def test_a_clip_without_a_frame_rate_is_an_error():
    with pytest.raises(VideoError, match=r"'x\.gif'.*no frame rate"):
        told_times(sampled((0, 1), 0.0, 2), Clip("x.gif"))

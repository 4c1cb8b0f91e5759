"""The window of a resized picture equals that of the whole picture, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mapflow.model_adapters.video import resizing
from mapflow.model_adapters.video.resizing import ImagePreprocessing, resize_window, source_span

FILTERS = [
    Image.Resampling.BOX,
    Image.Resampling.BILINEAR,
    Image.Resampling.BICUBIC,
    Image.Resampling.LANCZOS,
]


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def spans(length):
    """Most of a side, or any part of it."""
    some = st.tuples(st.integers(0, length - 1), st.integers(1, length))
    most = st.tuples(st.integers(0, length // 5), st.integers(length - length // 5, length))
    return (some | most).map(lambda pair: (pair[0], max(pair[0] + 1, pair[1])))


@st.composite
def sides(draw):
    """Two sides as (length, new length, window): shrunk by one integer factor, or independently."""
    news = draw(st.tuples(st.integers(1, 150), st.integers(1, 150)))
    factor = draw(st.integers(1, 5))
    any_way = draw(st.integers(0, 3)) == 0
    lengths = [draw(st.integers(1, 200)) if any_way else new * factor for new in news]
    return [(length, new, draw(spans(new))) for length, new in zip(lengths, news, strict=True)]


@settings(deadline=None, max_examples=300)
@given(sides(), st.sampled_from(FILTERS), st.integers(0, 99))
def test_a_window_equals_that_of_the_whole(sizes, resample, seed):
    (height, new_height, rows), (width, new_width, columns) = sizes
    frame = picture(height, width, seed)
    whole = np.asarray(Image.fromarray(frame).resize((new_width, new_height), resample))
    part = resize_window(frame, (new_height, new_width), resample, rows, columns)
    assert part.shape == whole.shape
    window = slice(*rows), slice(*columns)
    assert np.array_equal(part[window], whole[window])


@settings(deadline=None, max_examples=300)
@given(sides(), st.sampled_from(FILTERS))
def test_nothing_outside_the_source_span_matters(sizes, resample):
    length, new, wanted = sizes[0]
    frame = picture(length, 4)
    begin, end = source_span(length, new, wanted)
    other = 255 - frame
    other[begin:end] = frame[begin:end]
    one, two = (
        np.asarray(Image.fromarray(each).resize((4, new), resample)) for each in (frame, other)
    )
    assert np.array_equal(one[slice(*wanted)], two[slice(*wanted)])


@pytest.mark.parametrize(
    "size", [(1080, 1920), (1920, 1080), (720, 1280), (480, 854), (1080, 1080), (2160, 3840)]
)
def test_pixel_values_are_those_of_whole_frames(size, monkeypatch):
    """For full HD, the first resize covers only a part of the frame."""
    resized = []
    original = Image.Image.resize
    monkeypatch.setattr(
        Image.Image,
        "resize",
        lambda self, *rest: resized.append(self.size) or original(self, *rest),
    )
    preprocess = ImagePreprocessing(336, (336, 336), (0.48, 0.46, 0.41), (0.27, 0.26, 0.28))
    frames = picture(*size)[None]
    preprocess(frames)  # the first call of a size tests the order in which Pillow resizes
    resized.clear()
    parts = preprocess(frames)
    assert max(resized[0]) < 1200 or size not in ((1080, 1920), (1920, 1080))
    monkeypatch.setattr(resizing, "_parts_agree", lambda *_: False)
    assert np.array_equal(parts.numpy(), preprocess(frames).numpy())

"""Pixel values against transformers' CLIP image processor with the input of the authors' code."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mapflow.model_adapters.video.resizing import ImagePreprocessing, working_size
from mapflow.results.contract.errors import MapflowError

CONFIG = {
    "size": {"shortest_edge": 56},
    "crop_size": {"height": 56, "width": 56},
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "rescale_factor": 0.00392156862745098,
    "resample": 3,
}
# The PIL backend, whose name differs between releases of transformers.
Clip = getattr(transformers, "CLIPImageProcessorPil", None) or transformers.CLIPImageProcessor


def preprocessing(**changes) -> ImagePreprocessing:
    return ImagePreprocessing.from_config(CONFIG | changes, "preprocessor_config.json")


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (1, height, width, 3), dtype=np.uint8)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(20, 300), st.integers(20, 300), st.integers(0, 99), st.sampled_from([28, 49, 56])
)
def test_equals_resize_then_clip(height, width, seed, edge):
    frames = picture(height, width, seed)
    settings_ = {"size": {"shortest_edge": edge}, "crop_size": {"height": edge, "width": edge}}
    rows, columns = working_size(height, width, edge)
    short = min(rows, columns)
    scaled = (
        (short, int(short * height / width))
        if width <= height
        else (int(short * width / height), short)
    )
    first = (
        Image.fromarray(frames[0])
        .resize(scaled, Image.Resampling.BICUBIC)
        .crop((0, 0, columns, rows))
    )
    config: dict[str, Any] = CONFIG | settings_
    expected = Clip(**config)(first, return_tensors="np")["pixel_values"][0]
    ours = preprocessing(**settings_)(frames)[0].numpy()
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "at_least", "expected"),
    [
        ((50, 81), 56, (56, 90)),  # smaller than the tower's resolution: enlarged to it
        ((70, 96), 56, (70, 96)),  # in between: unchanged
        ((720, 1280), 336, (360, 640)),  # larger: the longest edge becomes 640 …
        ((1280, 720), 336, (640, 360)),
        (
            (480, 1920),
            336,
            (336, 1344),
        ),  # … unless the short edge would fall below the tower's resolution
        ((64, 64), 56, (64, 64)),
        (
            (49, 119),
            336,
            (336, 815),
        ),  # 336 · (119 / 49) is 815.99… in floats instead of 816: a column is lost
        ((41, 46), 28, (40, 44)),  # 46 / (46 / 41) is 40.99…: the short edge loses a row
    ],
)
def test_working_size(size, at_least, expected):
    assert working_size(*size, at_least) == expected


@given(st.integers(1, 2000), st.integers(1, 2000), st.integers(14, 400))
def test_working_size_keeps_the_rules(height, width, at_least):
    rows, columns = working_size(height, width, at_least)
    short, long = sorted((height, width))
    assert min(rows, columns) >= at_least
    assert min(rows, columns) <= max(at_least, short)
    assert working_size(width, height, at_least) == (columns, rows)
    assert abs(max(rows, columns) - min(rows, columns) * long / short) <= 1 + 1e-6 * long


def test_values_are_normalised_bytes():
    frames = np.full((2, 56, 56, 3), 51, dtype=np.uint8)
    values = preprocessing()(frames)
    assert values.dtype == torch.float32
    assert values.shape == (2, 3, 56, 56)
    for channel, (mean, std) in enumerate(
        zip(CONFIG["image_mean"], CONFIG["image_std"], strict=True)
    ):
        assert torch.allclose(values[:, channel], torch.tensor((0.2 - mean) / std))


def test_older_spelling_of_sizes_and_exact_size():
    frames = picture(70, 96)
    assert torch.equal(preprocessing(size=56, crop_size=56)(frames), preprocessing()(frames))
    squeezed = preprocessing(size={"height": 56, "width": 56})(frames)
    assert squeezed.shape == (1, 3, 56, 56)
    assert not torch.equal(squeezed, preprocessing()(frames))


@pytest.mark.parametrize(
    ("changes", "word"),
    [({"do_center_crop": False}, "do_center_crop"), ({"do_normalize": False}, "do_normalize")],
)
def test_steps_may_not_be_omitted(changes, word):
    with pytest.raises(MapflowError, match=word):
        preprocessing(**changes)


def test_missing_entry_is_named():
    with pytest.raises(MapflowError, match=r"preprocessor_config\.json has no 'image_mean'"):
        ImagePreprocessing.from_config(
            {key: value for key, value in CONFIG.items() if key != "image_mean"},
            "preprocessor_config.json",
        )


def test_crop_larger_than_frame():
    with pytest.raises(MapflowError, match="crop_size"):
        preprocessing(crop_size=80)(picture(56, 56))

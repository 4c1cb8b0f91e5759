"""LLaVA-Video against the authors' code's own numbers, stage by stage, over every golden there
is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden import (
    FEATURES,
    Golden,
    check_answer_ids,
    check_base_run,
    check_embedding,
    check_layout,
    close,
    every_sample,
    merged_ids,
)
from golden_pllava import llava_goldens


@pytest.fixture(scope="module")
def goldens(golden_root) -> tuple[Golden, ...]:
    found = llava_goldens(golden_root)
    if not found:
        pytest.skip("no golden of the LLaVA family")
    return found


def test_prompt_and_ids(goldens):
    for golden, sample in every_sample(goldens):
        assert sample.prepared.input_ids.tolist() == merged_ids(sample, golden.model.placeholder_id)
        assert sample.prepared.question.letters == tuple(sorted(sample.letters))


def test_target_and_option_ids(goldens):
    for golden, sample in every_sample(goldens):
        check_answer_ids(golden, sample)


def test_pixel_values_bit_for_bit(goldens):
    for _, sample in every_sample(goldens):
        np.testing.assert_array_equal(
            sample.prepared.vision["pixel_values"].numpy(), sample.arrays["pixel_values"]
        )


@torch.inference_mode()
def test_video_tokens(goldens):
    for golden, sample in every_sample(goldens):
        network, pixels = golden.model.network, torch.from_numpy(sample.arrays["pixel_values"])
        close(network.vision_features(pixels), sample.arrays["vision_selected"], FEATURES)
        close(network.encode_video(pixels[None]), sample.arrays["vision_features"], FEATURES)


def test_prompt_embeddings_alone_and_in_a_batch(goldens):
    for golden, sample in every_sample(goldens):
        check_embedding(golden, sample)


def test_layout_ranges(goldens):
    for _, sample in every_sample(goldens):
        check_layout(sample)


def test_base_run(goldens):
    for golden, sample in every_sample(goldens):
        check_base_run(golden.model, sample)

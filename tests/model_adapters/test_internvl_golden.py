"""Mini-InternVL against the authors' code's own numbers, stage by stage and cut by cut, over every
golden there is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden import (
    FEATURES,
    RELATIVE,
    Family,
    Golden,
    check_answer_ids,
    check_base_run,
    check_embedding,
    check_layout,
    close,
    every_sample,
    merged_ids,
    span,
)
from golden import goldens as find_goldens
from golden_interventions import (
    check_effective,
    check_knockouts,
    check_random_budgets,
    check_random_masks,
    check_windows,
)
from golden_pllava import completion_question

from mapflow.model_adapters.families.internvl.model import InternVLVideo
from mapflow.model_adapters.video_llm import Prepared

VIDEO_TURN = " <|user|>\n<img><IMG_CONTEXT></img>\n <|user|>\n"


def load(folder: Path) -> InternVLVideo:
    return InternVLVideo.load(folder, dtype=torch.float32)


def encode(
    model: InternVLVideo,
    facts: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    question_id: str,
) -> Prepared:
    question = completion_question(facts, question_id, VIDEO_TURN, " <|assistant|>\n")
    return model.encode(question, arrays["frames"])


FAMILY = Family("InternVLChatModel", load, encode)


@pytest.fixture(scope="module")
def goldens(golden_root) -> tuple[Golden, ...]:
    found = find_goldens(golden_root, FAMILY)
    if not found:
        pytest.skip("no golden of the InternVL family")
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
        shuffled = sample.arrays["vit_pixelshuffled"]
        close(network.vision_features(pixels), shuffled, RELATIVE * np.abs(shuffled).max())
        close(network.encode_video(pixels), sample.arrays["vision_features"][0], FEATURES)


def test_prompt_embeddings_alone_and_in_a_batch(goldens):
    for golden, sample in every_sample(goldens):
        check_embedding(golden, sample)


def test_layout_ranges(goldens):
    for golden, sample in every_sample(goldens):
        check_layout(sample)
        first, each = sample.facts["vision_range"][0], golden.model.network.tokens_per_frame
        for frame in range(len(sample.arrays["frames"])):
            start = first + frame * each
            assert span(sample.prepared.layout, f"frame[{frame}]") == list(
                range(start, start + each)
            )


def test_base_run(goldens):
    for golden, sample in every_sample(goldens):
        check_base_run(golden.model, sample)


def test_knockouts(goldens):
    for golden in goldens:
        check_windows(golden)
        check_knockouts(golden)


def test_effective(goldens):
    for golden in goldens:
        check_effective(golden)


def test_random_with_the_given_masks(goldens):
    for golden in goldens:
        check_random_budgets(golden)
        assert check_random_masks(golden)

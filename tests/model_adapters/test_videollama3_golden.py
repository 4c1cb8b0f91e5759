"""VideoLLaMA3 against the authors' code's own numbers, stage by stage and cut by cut, over every
golden there is.

The released analysis lets frames mix in the vision tower, as the default does; one array of each
sample was made with frames apart (`vision_attention="isolated"`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden import (
    FEATURES,
    LOGITS,
    Family,
    Golden,
    check_answer_ids,
    check_base_run,
    check_embedding,
    check_layout,
    close,
    every_sample,
)
from golden import goldens as find_goldens
from golden_interventions import (
    check_effective,
    check_knockouts,
    check_random_budgets,
    check_random_masks,
    check_windows,
)

from mapflow.model_adapters.families.videollama3.model import VideoLlama3
from mapflow.model_adapters.video_llm import Prepared
from mapflow.results.contract.question import Clip, Prompt, Question


def question_of(facts: Mapping[str, Any], question_id: str) -> Question:
    """The question whose rendering is the golden's prompt; the instruction is cut out of that
    prompt."""
    texts = [text.removesuffix("\n") for text in facts["option_letters_full"]]
    instruction = facts["prompt"].split(texts[-1])[-1].split("<|im_end|>")[0]
    prompt = Prompt("", "Question: ", "\nOptions:\n", "({letter}) {text}", "\n", instruction, "")
    return Question(
        question_id=question_id,
        video_id=question_id,
        task="golden",
        clip=Clip("golden.mp4"),
        stem=facts["question"],
        options=tuple(re.sub(r"^\(\w\) ", "", text) for text in texts),
        target=facts["ground_truth"],
        protocol="paper",
        prompts={"chat": prompt},
    )


def load(folder: Path) -> VideoLlama3:
    return VideoLlama3.load(folder, dtype=torch.float32)


@cache
def isolated(folder: Path) -> VideoLlama3:
    return VideoLlama3.load(folder, dtype=torch.float32, vision_attention="isolated")


def encode(
    model: VideoLlama3, facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray], question_id: str
) -> Prepared:
    return model.encode(
        question_of(facts, question_id), arrays["frames"], times=arrays["timestamps"].tolist()
    )


FAMILY = Family("Videollama3Qwen2ForCausalLM", load, encode)


@pytest.fixture(scope="module")
def goldens(golden_root) -> tuple[Golden, ...]:
    """Of both layouts: the hub's, and the local one with its vision tower's folder beside it."""
    found = find_goldens(golden_root, FAMILY)
    if not found:
        pytest.skip("no golden of the VideoLLaMA3 family")
    return found


def test_prompt_and_ids(goldens):
    for _, sample in every_sample(goldens):
        assert sample.prepared.input_ids.tolist() == sample.arrays["input_ids"][0].tolist()


def test_target_and_option_ids(goldens):
    for golden, sample in every_sample(goldens):
        check_answer_ids(golden, sample)


def test_patches_bit_for_bit(goldens):
    for golden, sample in every_sample(goldens):
        vision = sample.prepared.vision
        np.testing.assert_array_equal(vision["pixel_values"].numpy(), sample.arrays["pixel_values"])
        assert vision["grid"].tolist() == sample.arrays["grid_sizes"][0].tolist()
        assert golden.model.preprocessing.merge == sample.arrays["merge_sizes"][0]


@torch.inference_mode()
def test_video_tokens(goldens):
    for golden, sample in every_sample(goldens):
        network, pixels = golden.model.network, torch.from_numpy(sample.arrays["pixel_values"])
        frames, rows, columns = sample.arrays["grid_sizes"][0].tolist()
        grid = (frames, rows, columns)
        close(network.vision_features(pixels, grid), sample.arrays["encoder_out"], FEATURES)
        close(network.encode_video(pixels, grid), sample.arrays["vision_features"], FEATURES)


def test_prompt_embeddings_alone_and_in_a_batch(goldens):
    for golden, sample in every_sample(goldens):
        check_embedding(golden, sample)


def test_layout_ranges(goldens):
    for _, sample in every_sample(goldens):
        check_layout(sample)


def test_base_run(goldens):
    for golden, sample in every_sample(goldens):
        check_base_run(golden.model, sample)


def test_base_run_with_frames_apart(goldens):
    for golden, sample in every_sample(goldens):
        model = isolated(golden.model_folder)
        close(model.plain_logits(sample.prepared), sample.arrays["logits_last_visionsdpa"], LOGITS)


def test_knockouts(goldens):
    for golden in goldens:
        check_windows(golden)
        check_knockouts(golden)


def test_effective(goldens):
    for golden in goldens:
        check_effective(golden)


def test_random_with_the_given_masks(goldens):
    drawn = [golden for golden in goldens if golden.has("random")]
    if not drawn:
        pytest.skip("no golden of random blocking for this family")
    for golden in drawn:
        check_random_budgets(golden)
        assert check_random_masks(golden)


def test_both_layouts_are_the_same_model(goldens):
    """Checkpoints that share a golden hold the same weights."""
    by_numbers: dict[Path, list[Golden]] = {}
    for golden in goldens:
        by_numbers.setdefault(golden.folder, []).append(golden)
    shared = [group for group in by_numbers.values() if len(group) > 1]
    if not shared:
        pytest.skip("no two checkpoints share their numbers")
    for first, *others in shared:
        expected = first.model.network.state_dict()
        for other in others:
            found = other.model.network.state_dict()
            assert found.keys() == expected.keys()
            assert all(torch.equal(found[name], expected[name]) for name in expected)

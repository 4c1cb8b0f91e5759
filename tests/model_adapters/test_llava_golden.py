"""LLaVA-Video against the released code's own numbers, stage by stage, over every golden there is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from golden import FEATURES, Golden, Sample, check_base_run, close, span
from golden_pllava import llava_goldens


@pytest.fixture(scope="module")
def goldens(golden_root) -> tuple[Golden, ...]:
    found = llava_goldens(golden_root)
    if not found:
        pytest.skip("no golden of the LLaVA family")
    return found


@pytest.fixture(scope="module")
def every(goldens) -> Callable:
    """Calls a check with every golden and sample; an assertion's report shows which."""

    def run(check: Callable[[Golden, Sample], None]) -> None:
        for golden in goldens:
            assert golden.samples, f"{golden} has no samples"
            for sample in golden.samples:
                check(golden, sample)

    return run


def merged_ids(sample: Sample, placeholder: int) -> list[int]:
    """The golden's text ids with the placeholder repeated for every video token."""
    ids = sample.arrays["input_ids"][0].tolist()
    at = sample.facts["image_placeholder_index"]
    return ids[:at] + [placeholder] * sample.facts["num_vis"] + ids[at + 1 :]


def test_prompt_and_ids(every):
    def check(golden: Golden, sample: Sample) -> None:
        model, prepared = golden.model, sample.prepared
        assert prepared.input_ids.tolist() == merged_ids(sample, model.placeholder_id)
        assert len(prepared.layout) == len(prepared.input_ids) == sample.facts["ntoks"]
        assert prepared.question.letters == tuple(sorted(sample.letters))

    every(check)


def test_target_and_option_ids(every):
    def check(golden: Golden, sample: Sample) -> None:
        assert sample.prepared.target_id == sample.facts["gt_t"]
        assert sample.prepared.question.target_text == sample.facts["gt"]
        spelled = golden.model.tokenizer.convert_ids_to_tokens(list(sample.prepared.option_ids))
        assert spelled == list(sample.prepared.question.letters)

    every(check)


def test_pixel_values_bit_for_bit(every):
    def check(golden: Golden, sample: Sample) -> None:
        np.testing.assert_array_equal(
            sample.prepared.vision["pixel_values"].numpy(), sample.arrays["pixel_values"]
        )

    every(check)


@torch.inference_mode()
def test_video_tokens(every):
    def check(golden: Golden, sample: Sample) -> None:
        network, pixels = golden.model.network, torch.from_numpy(sample.arrays["pixel_values"])
        close(network.vision_features(pixels), sample.arrays["vision_selected"], FEATURES)
        close(network.encode_video(pixels[None]), sample.arrays["vision_features"], FEATURES)

    every(check)


def test_prompt_embeddings(every):
    def check(golden: Golden, sample: Sample) -> None:
        if "inputs_embeds" in sample.arrays:
            close(
                golden.model.embed([sample.prepared])[0].embeds, sample.arrays["inputs_embeds"][0], FEATURES
            )

    every(check)


def test_embedding_a_batch_equals_embedding_each(goldens):
    for golden in goldens:
        prepared = [sample.prepared for sample in golden.samples]
        for item, together in zip(prepared, golden.model.embed(prepared), strict=True):
            alone = golden.model.embed([item])[0]
            torch.testing.assert_close(together.embeds, alone.embeds, rtol=0, atol=FEATURES)


def test_positions_count_up(every):
    def check(golden: Golden, sample: Sample) -> None:
        assert golden.model.embed([sample.prepared])[0].plain
        assert sample.arrays["position_ids"][0].tolist() == list(range(len(sample.prepared.layout)))

    every(check)


def test_layout_ranges(every):
    def check(golden: Golden, sample: Sample) -> None:
        layout, facts = sample.prepared.layout, sample.facts
        expected = {
            "system": facts["system_range"],
            "video": facts["vision_range"],
            "question": facts["question_range"],
            "stem": facts["question_without_options_range"],
            "true_option": facts["true_option_range"],
        }
        expected |= {f"frame[{index}]": each for index, each in enumerate(facts["frame_ranges"])}
        for name, (start, end) in expected.items():
            assert span(layout, name) == list(range(start, end)), name
        assert layout.n_frames == len(facts["frame_ranges"])
        assert span(layout, "false_options") == sorted(facts["false_option_indices"])
        assert span(layout, "last") == [facts["last_token"]]
        rest = set(range(facts["ntoks"])) - set(span(layout, "system", "video", "question", "last"))
        assert set(span(layout, "template")) == rest

    every(check)


def test_base_run(every):
    every(lambda golden, sample: check_base_run(golden.model, sample))

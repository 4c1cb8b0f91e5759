"""LLaVA-Video against the released code's own numbers, stage by stage, over every golden there is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from golden_pllava import Golden, Sample, llava_goldens

from mapflow.model_adapters.interventions import TokenLayout

LOGITS, PROBABILITIES, FEATURES, RELATIVE = 1e-4, 1e-5, 1e-5, 1e-5


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


def close(ours: torch.Tensor, theirs: np.ndarray, tolerance: float) -> None:
    assert tuple(ours.shape) == theirs.shape
    assert (ours - torch.from_numpy(theirs)).abs().max().item() <= tolerance


def close_to_scale(ours: torch.Tensor, theirs: np.ndarray) -> None:
    """Layer by layer: the residual stream grows to tens, so its rounding is measured against its own largest value."""
    scale = np.abs(theirs).reshape(len(theirs), -1).max(-1)
    for our_layer, their_layer, size in zip(ours, theirs, scale, strict=True):
        close(our_layer, their_layer, RELATIVE * size)


def span(layout: TokenLayout, *names: str) -> list[int]:
    return sorted(position for name in names for position in layout.positions(name).tolist())


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


@torch.inference_mode()
def test_base_run(every):
    """The plain forward pass, without the instrument: logits, hidden states, the base answer and its probability."""

    def check(golden: Golden, sample: Sample) -> None:
        network, facts, arrays = golden.model.network, sample.facts, sample.arrays
        embeds = golden.model.embed([sample.prepared])[0].embeds
        output = network.language_model(inputs_embeds=embeds[None], output_hidden_states=True)
        logits, hidden = output.logits[0], torch.stack(output.hidden_states)[:, 0]
        close(logits[-1], arrays["logits_last"], LOGITS)
        close_to_scale(hidden[:, -1], arrays["hidden_last"])
        if "logits_all" in arrays:
            close(logits, arrays["logits_all"], LOGITS)
            close_to_scale(hidden, arrays["hidden_all"])
        probabilities = logits[-1].softmax(-1)
        assert int(probabilities.argmax()) == facts["base_answer_t"]
        assert abs(float(probabilities.max()) - facts["base_score"]) <= PROBABILITIES
        assert abs(float(probabilities[sample.prepared.target_id]) - facts["gt_score"]) <= PROBABILITIES

    every(check)

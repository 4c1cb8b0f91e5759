"""LLaVA-Video under interventions against the authors' code's own numbers, over every golden there
is.

`golden.py` compares what goldens of all families have; decoding is known for this family alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from golden import LOGITS, Golden, Sample
from golden_interventions import (
    assert_scores,
    check_effective,
    check_knockouts,
    check_random_budgets,
    check_random_masks,
    check_windows,
    compiled,
    effective_expression,
)
from golden_pllava import llava_goldens
from torch import Tensor
from transformers import DynamicCache

from mapflow.model_adapters.interventions import BatchMasks, Compiled, DecoderInputs, apply

LETTERS = {"V": "video", "Q": "question", "L": "last"}


@pytest.fixture(scope="module")
def goldens(golden_root) -> tuple[Golden, ...]:
    found = llava_goldens(golden_root)
    if not found:
        pytest.skip("no golden of the LLaVA family")
    return found


def test_knockouts(goldens):
    for golden in goldens:
        check_knockouts(golden)


def test_windows_are_those_that_the_released_code_hooks(goldens):
    for golden in goldens:
        check_windows(golden)


def test_effective(goldens):
    for golden in goldens:
        check_effective(golden)


def test_random_budgets(goldens):
    for golden in goldens:
        check_random_budgets(golden)


def test_random_with_the_given_masks(goldens):
    assert sum(check_random_masks(golden) for golden in goldens)


def generations(golden: Golden) -> Iterator[tuple[Sample, str, dict, np.ndarray]]:
    """Every sample and cut under which the golden decodes: (sample, expression, facts, scores
    [step, vocab])."""
    file = golden.folder / "generate.json"
    if not file.is_file():
        return
    effective, _ = golden.numbers("effective")
    for sample_name, runs in json.loads(file.read_text(encoding="utf-8")).items():
        sample = golden.samples[int(sample_name.removeprefix("sample"))]
        with np.load(golden.folder / f"generate_{sample_name}.npz") as arrays:
            for name, facts in runs.items():
                facts = facts if isinstance(facts, dict) else {"new_ids": facts}
                if name == "base":
                    expression = "full"
                elif facts["layerlist"] is None:
                    ranges = effective[f"{name}_{sample_name}"]["ranges"]
                    expression = effective_expression(ranges, golden.model.decoder.n_layers)
                else:
                    source, target = (LETTERS[letter] for letter in name.split("_")[0].split("2"))
                    expression = "+".join(
                        f"{source}->{target}@{layer + 1}" for layer in facts["layerlist"]
                    )
                yield sample, expression, facts, arrays[f"{name}_scores"]


def test_decoding_under_knockout(goldens):
    """Token ids, and the logits of every step, whose rows inherit the last prompt row's cuts."""
    for golden in goldens:
        for sample, expression, facts, scores in generations(golden):
            (inputs,) = golden.model.embed([sample.prepared])
            item = compiled(golden, sample, expression)
            tokens, first = golden.model.decoder.generate(
                inputs, [item], max_new_tokens=len(facts["new_ids"])
            )
            assert tokens == [facts["new_ids"]], expression
            np.testing.assert_allclose(first[0].numpy(), scores[0], rtol=0, atol=LOGITS)
            np.testing.assert_allclose(
                step_logits(golden, inputs, item, facts["new_ids"]), scores, rtol=0, atol=LOGITS
            )
            if "new_answer_t" in facts:
                assert_scores(first[0], sample.facts, facts)


@torch.inference_mode()
def step_logits(
    golden: Golden, inputs: DecoderInputs, item: Compiled, new_ids: Sequence[int]
) -> np.ndarray:
    """Cached decoding with the golden's tokens: the logits that each of them was chosen from."""
    model = golden.model.network.language_model
    cache, steps = DynamicCache(config=model.config), []
    feed: dict[str, Tensor] = {"inputs_embeds": inputs.embeds[None]}
    with apply(BatchMasks.of([item])):
        for token in new_ids:
            steps.append(model(**feed, past_key_values=cache).logits[0, -1])
            feed = {"input_ids": torch.tensor([[token]])}
    return torch.stack(steps).numpy()

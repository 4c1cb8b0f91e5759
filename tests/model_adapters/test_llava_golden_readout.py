"""Traces and lenses of LLaVA-Video against the authors' code's own numbers, over every golden that
has them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden import PROBABILITIES, Golden, Sample
from golden_pllava import llava_goldens

from mapflow.harness.analyses.lens import Lens
from mapflow.harness.analyses.trace import Trace, nearest_id
from mapflow.model_adapters.interventions import Intervention
from mapflow.model_adapters.interventions.execution.readout import (
    embedding_logits,
    hidden_states,
    layer_inputs,
    layer_outputs,
    probabilities,
    top_k,
)

# Un-normed states give logits of hundreds, so that float32 alone moves a probability by a share of
# itself: on one sample the authors' code's own lens values lie 3.3e-5 from a float64 run of its
# embeddings, ours 6.6e-5.
SHARE = 1e-3
FULL = (Intervention(),)


@pytest.fixture(scope="module")
def traced(golden_root: Path) -> list[tuple[Golden, Sample, dict[str, Any]]]:
    """Every golden sample with its gen_prob row."""
    found = [
        (golden, golden.samples[row["sample"]], row)
        for golden in llava_goldens(golden_root)
        if golden.has("gen_prob")
        for row in golden.json("gen_prob")
    ]
    return found or pytest.skip("no golden of the LLaVA family has gen_prob.json")


@pytest.mark.parametrize(("norm", "name"), [(False, "no_layer_norm"), (True, "layer_norm")])
def test_trace(traced, norm, name):
    for golden, sample, row in traced:
        (record,) = Trace(FULL, norm, released=True).measure(golden.model, sample.prepared)
        layers = row["layers"][name]
        assert [layer["layer"] for layer in layers] == list(range(golden.model.decoder.n_layers))
        assert record.p_options is not None
        false = row["false_opt"]
        assert list(record.false_options) == false
        assert [record.target] == row["true_opt"]
        ours = np.array(
            [record.p_answers, record.p_targets, *(record.p_options[one] for one in false)]
        )
        theirs = np.array(
            [[layer["base_score"], *layer["true"], *layer["false"]] for layer in layers]
        )
        agree(ours.T, theirs / 100)
        most = [golden.model.tokenizer.decode([layer["topk_ids"][0]]).strip() for layer in layers]
        assert list(record.tops) == most


def test_candidates_are_those_that_the_released_code_takes(traced):
    for golden, _, row in traced:
        for letters, ids in (("true_opt", "true_opt_t"), ("false_opt", "false_opt_t")):
            found = [
                nearest_id(golden.model.tokenizer, one, row["answer_t"]) for one in row[letters]
            ]
            assert found == row[ids]


@pytest.mark.parametrize(("norm", "name"), [(False, "no_layer_norm"), (True, "layer_norm")])
def test_most_probable_answers_of_every_layer(traced, norm, name):
    for golden, sample, row in traced:
        hidden = states(golden, sample, torch.tensor([len(sample.prepared.layout) - 1]))
        outputs = layer_outputs(golden.model.decoder, hidden, norm)
        layers = row["layers"][name]
        ids = np.array([layer["topk_ids"] for layer in layers])[:, None]
        theirs = np.array([layer["topk_probs"] for layer in layers])[:, None]
        check_top(golden.model.decoder.logits, outputs, ids, theirs / 100)


def test_lens(golden_root):
    checked = 0
    for golden, sample, ids, theirs in lenses(golden_root):
        checked += 1
        decoder = golden.model.decoder
        hidden = states(golden, sample, torch.arange(len(sample.prepared.layout)))
        check_top(embedding_logits(decoder), layer_inputs(decoder, hidden), ids, theirs)
    if not checked:
        pytest.skip("no golden of the LLaVA family has logit_lens.npz")


def test_lens_records_show_the_video(golden_root):
    """The released variant's record, which holds the video's positions alone."""
    for golden, sample, ids, theirs in lenses(golden_root):
        start, end = sample.facts["vision_range"]
        lens = Lens(FULL, ids.shape[-1], raw_embeddings=True)
        (record,) = lens.measure(golden.model, sample.prepared)
        agree(np.array(record.probabilities), theirs[:, start:end])
        sure = separated(theirs[:, start:end])
        np.testing.assert_array_equal(np.array(record.ids)[sure], ids[:, start:end][sure])
        frames = sample.facts["frame_ranges"]
        assert record.frames == tuple(i for i, (a, b) in enumerate(frames) for _ in range(a, b))


def states(golden: Golden, sample: Sample, rows: torch.Tensor) -> torch.Tensor:
    (inputs,) = golden.model.embed([sample.prepared])
    compiled = Intervention().compile(sample.prepared.layout, golden.model.decoder.n_layers)
    return hidden_states(golden.model.decoder, inputs, compiled, rows)


def lenses(root: Path) -> Iterator[tuple[Golden, Sample, np.ndarray, np.ndarray]]:
    for golden in llava_goldens(root):
        arrays = golden.arrays("logit_lens")
        for name in arrays:
            if name.endswith("_preds"):
                index = int(name.removeprefix("sample").removesuffix("_preds"))
                yield (
                    golden,
                    golden.samples[index],
                    arrays[name],
                    arrays[name.replace("_preds", "_probs")],
                )


def agree(ours: np.ndarray, theirs: np.ndarray) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=SHARE, atol=PROBABILITIES)


def separated(theirs: np.ndarray) -> np.ndarray:
    """Entries whose probability is clear of both neighbours', so that rounding cannot exchange
    them."""
    gap = -np.diff(theirs, axis=-1) > 2 * (PROBABILITIES + SHARE * theirs[..., :-1])
    edge = np.ones_like(gap[..., :1])
    return np.concatenate([edge, gap], -1) & np.concatenate([gap, ~edge], -1)


def check_top(project, hidden: torch.Tensor, ids: np.ndarray, theirs: np.ndarray) -> None:
    """Ids where probabilities are clear of each other, and all of their ids' and the k largest
    probabilities."""
    found, values = top_k(project, hidden, ids.shape[-1])
    assert found.shape == ids.shape
    agree(values.numpy(), theirs)
    sure = separated(theirs)
    assert sure.any()
    np.testing.assert_array_equal(found.numpy()[sure], ids[sure])
    every = probabilities(project, hidden)
    at_their_ids = every.gather(-1, torch.from_numpy(ids.astype(np.int64)))
    agree(at_their_ids.numpy(), theirs)

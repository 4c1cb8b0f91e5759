"""Checks of interventions against the numbers of the authors' code, for every family.

The files name routes and layers as the authors' code does (0-based, ends exclusive). Here they are
written as a user writes them, and run through parser, compiler and branching decoder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from golden import LOGITS, PERCENTAGE_POINTS, PROBABILITIES, Golden, Sample
from torch import Tensor

from mapflow.model_adapters.interventions import (
    BatchMasks,
    Compiled,
    LayerSpan,
    PathwayRanges,
    apply,
    parse_intervention,
)

NAMES = {
    "Video": "video",
    "Question": "question",
    "Last": "last",
    "Non-option question": "stem",
    "True option": "true_option",
    "False option": "false_options",
}
PATHWAYS = {
    "INTER_FRAME": "cross-frame",
    "VIDEO_TO_QUESTION": "video->question",
    "QUESTION_TO_LAST": "question->last",
}


def route(words: str) -> str:
    """ "Non-option question -/-> Last" as "stem->last"."""
    if words == "No cross-frame interactions":
        return "cross-frame"
    source, target = words.split(" -/-> ")
    return f"{NAMES[source]}->{NAMES[target]}"


def compiled(golden: Golden, sample: Sample, expression: str) -> Compiled:
    return parse_intervention(expression).compile(
        sample.prepared.layout, golden.model.decoder.n_layers
    )


def answers(golden: Golden, sample: Sample, interventions: Sequence[Compiled]) -> Tensor:
    """Last-position logits, a row an intervention."""
    (logits,) = golden.model.decoder.answer_logits(
        golden.model.embed([sample.prepared]), [interventions]
    )
    return logits


def assert_scores(logits: Tensor, facts: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """Probabilities, answer and relative changes of one golden row (or of arrays of them)."""
    probabilities = logits.softmax(-1).double().numpy()

    def close(ours: np.ndarray, name: str, tolerance: float) -> None:
        if name in theirs:
            np.testing.assert_allclose(ours, theirs[name], rtol=0, atol=tolerance, err_msg=name)

    base, target = probabilities[..., facts["base_answer_t"]], probabilities[..., facts["gt_t"]]
    close(base, "new_score", PROBABILITIES)
    close(target, "new_score_gt", PROBABILITIES)
    close(probabilities.max(-1), "prob_max", PROBABILITIES)
    change = (base - facts["base_score"]) / facts["base_score"] * 100
    change_of_target = (target - facts["gt_score"]) / facts["gt_score"] * 100
    close(change, "relative_diff", PERCENTAGE_POINTS)
    close(change_of_target, "relative_diff_gt", PERCENTAGE_POINTS)
    np.testing.assert_array_equal(probabilities.argmax(-1), theirs["new_answer_t"])


def check_knockouts(golden: Golden) -> None:
    """Every route × window × layer × sample: the answer's and the target's probability, the answer,
    the changes."""
    about, arrays = golden.numbers("knockouts")
    routes, n_layers = [route(words) for words in about["knockouts"]], about["num_layers"]
    assert n_layers == golden.model.decoder.n_layers
    for sample in golden.samples:
        for config, (style, size) in enumerate(about["configs"]):
            style_here = style.replace("_", "-")
            placed = [
                compiled(golden, sample, f"knockout:{each}@{style_here}={layer + 1},window={size}")
                for each in routes
                for layer in range(n_layers)
            ]
            logits = answers(golden, sample, placed).unflatten(0, (len(routes), n_layers))
            theirs = {n: a[sample.index, :, config] for n, a in arrays.items() if a.ndim == 4}
            assert {
                "new_score",
                "new_score_gt",
                "prob_max",
                "new_answer_t",
                "relative_diff",
            } <= set(theirs)
            assert_scores(logits, sample.facts, theirs)
            full = arrays.get(f"sample{sample.index}_{style}{size}")
            if full is not None:
                np.testing.assert_allclose(logits.numpy(), full, rtol=0, atol=LOGITS)


def check_windows(golden: Golden) -> None:
    """Each window hooks the layers that the authors' code hooks."""
    about, _ = golden.numbers("knockouts")
    sample = golden.samples[0]
    for style, size in about["configs"]:
        lists = about["layerlists"][f"{style}{size}"]
        assert len(lists) == about["num_layers"]
        for layer, hooked in enumerate(lists):
            text = f"knockout:video->last@{style.replace('_', '-')}={layer + 1},window={size}"
            cut = ~compiled(golden, sample, text).allowed.all((1, 2))
            assert np.flatnonzero(cut).tolist() == hooked


def effective_expression(ranges: Mapping[str, Sequence[int]], n_layers: int) -> str:
    """The paper's policy with the golden's ranges [a, b).

    The authors' code lets a range lie (partly) beyond the model's last layer; we refuse such
    ranges, so they are written as what they come to: ending at the last layer, or, wholly beyond
    it, that pathway cut everywhere."""
    spans, closed = [], []
    for name, pathway in PATHWAYS.items():
        first, last = ranges[name][0] + 1, min(ranges[name][1], n_layers)
        if first > n_layers:
            first = last = n_layers
            closed.append(pathway)
        spans.append(LayerSpan(first, last))
    return "+".join([f"effective:{PathwayRanges(*spans)}", *closed])


def of_samples(golden: Golden, facts: Mapping[str, Any]) -> Iterator[tuple[str, str, Sample]]:
    """(key, key without the sample, sample) of every "…_sample3" in a golden file."""
    for key in facts:
        name, _, index = key.rpartition("_sample")
        yield key, name, golden.samples[int(index)]


def assert_mask(item: Compiled, allowed: np.ndarray) -> None:
    for layer, theirs in enumerate(allowed):
        assert torch.equal(item.token_mask(layer), torch.from_numpy(theirs)), f"layer {layer + 1}"


def check_effective(golden: Golden) -> None:
    """Masks and edge counts exactly, logits, probabilities and relative changes."""
    facts, arrays = golden.numbers("effective")
    assert facts
    for key, _, sample in of_samples(golden, facts):
        theirs = facts[key]
        item = compiled(
            golden, sample, effective_expression(theirs["ranges"], golden.model.decoder.n_layers)
        )
        assert (item.edges_kept, item.edges_total) == (
            theirs["new_attention_cnt"],
            theirs["base_attention_cnt"],
        )
        assert 100 * item.edges_kept / item.edges_total == pytest.approx(
            theirs["attention_amount"], abs=1e-9
        )
        if f"{key}_allowed" in arrays:
            assert_mask(item, arrays[f"{key}_allowed"])
        logits = answers(golden, sample, [item])[0]
        np.testing.assert_allclose(logits.numpy(), arrays[f"{key}_logits"], rtol=0, atol=LOGITS)
        assert_scores(logits, sample.facts, theirs)


def check_random_budgets(golden: Golden) -> None:
    """As many edges as the authors' code blocks, for every ratio, whatever the draw."""
    facts, _ = golden.numbers("random")
    for key, _, sample in of_samples(golden, facts):
        theirs = facts[key]
        item = compiled(
            golden, sample, f"random:ratio={theirs['ratio']!r},seed={theirs['torch_manual_seed']}"
        )
        assert item.budget is not None
        assert set(item.budget) == {min(theirs["num_block_requested"], theirs["num_valid_indices"])}
        assert (item.edges_kept, item.edges_total) == (
            theirs["new_attention_cnt"],
            theirs["base_attention_cnt"],
        )


@torch.inference_mode()
def check_random_masks(golden: Golden) -> int:
    """The golden's own draws, put in the place of ours: everything after the draw is the same. How
    many there were."""
    checked = 0
    facts, arrays = golden.numbers("random")
    for key, _, sample in of_samples(golden, facts):
        if f"{key}_allowed" not in arrays:
            continue
        checked += 1
        allowed = torch.from_numpy(arrays[f"{key}_allowed"])
        ours = compiled(golden, sample, f"random:ratio={facts[key]['ratio']!r}")
        assert [int(mask.sum()) for mask in allowed] == ours.edges_by_layer.tolist()
        logits = plain_logits(golden, sample, plan_of(allowed))
        np.testing.assert_allclose(logits.numpy(), arrays[f"{key}_logits"], rtol=0, atol=LOGITS)
        assert_scores(logits, sample.facts, facts[key])
    return checked


def plan_of(allowed: Tensor) -> BatchMasks:
    """A plan from explicit masks [layer, query, key]: one segment, nothing cut but single edges."""
    n_layers, n, _ = allowed.shape
    everything = torch.ones(1, n_layers, 2, 2, dtype=torch.bool)
    segment_of = torch.zeros(1, n, dtype=torch.long)
    return BatchMasks(
        everything, segment_of, torch.tensor([n - 1]), lambda layer: ~allowed[layer][None]
    )


def plain_logits(golden: Golden, sample: Sample, plan: BatchMasks) -> Tensor:
    """By the model's own forward under a plan, without the branching decoder."""
    (inputs,) = golden.model.embed([sample.prepared])
    with apply(plan):
        return golden.model.decoder.model(inputs_embeds=inputs.embeds[None]).logits[0, -1]

"""Edges that a model lacks are neither cut nor counted; those it has besides the causal ones are.

The reference implementation is one boolean matrix per layer.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mapflow.model_adapters.interventions import (
    PathwayRanges,
    Segment,
    TokenLayout,
    parse_intervention,
)
from mapflow.model_adapters.interventions.language.own_edges import OwnEdges

LAYOUT = TokenLayout.from_runs(
    [
        (Segment("system"), 3),
        *((Segment("frame", index), 5) for index in range(4)),
        (Segment("stem"), 4),
        (Segment("option"), 2),
        (Segment("option", 1), 3),
        (Segment("template"), 2),
        (Segment("last"), 1),
    ],
    true_option=1,
)
N, LAYERS = len(LAYOUT), 4
CAUSAL = torch.ones(N, N, dtype=torch.bool).tril()
WINDOW = CAUSAL & torch.ones(N, N, dtype=torch.bool).triu(-5)
VIDEO = torch.from_numpy(LAYOUT.select("video")[LAYOUT.segment_of])
BOTH_WAYS = CAUSAL | VIDEO[:, None] & VIDEO
FRAMES = torch.from_numpy(LAYOUT.segment_of)
BY_FRAME = WINDOW | VIDEO[:, None] & VIDEO & (FRAMES[:, None] == FRAMES)
OWN = OwnEdges([None, WINDOW, BOTH_WAYS, BY_FRAME])
RANGES = PathwayRanges.from_mapping(
    {"cross_frame": "1-2", "video_to_question": "2-3", "question_to_last": "3-4"}, "the test"
)
TEXTS = (
    "full",
    "effective",
    "cross-frame",
    "video->question@2-3",
    "frame[2]->frame[0]",
    "keep:all->system+all->last@2-4",
    "random:ratio=0.3,seed=5",
    "random:seed=2",
    "random:seed=2+video->last",
)


def own_masks() -> list[torch.Tensor]:
    return [CAUSAL, WINDOW, BOTH_WAYS, BY_FRAME]


@pytest.mark.parametrize("text", TEXTS)
def test_counts_and_masks_are_those_of_the_models_own_mask(text):
    one = parse_intervention(text).compile(LAYOUT, LAYERS, RANGES, "q", OWN)
    plain = parse_intervention(text).compile(LAYOUT, LAYERS, RANGES, "q")
    for layer, own in enumerate(own_masks()):
        allowed = torch.from_numpy(one.allowed[layer][LAYOUT.segment_of][:, LAYOUT.segment_of])
        blocked = one.blocked(layer)
        expected = own & allowed if blocked is None else own & allowed & ~blocked
        assert torch.equal(one.token_mask(layer), expected)
        assert one.edges_by_layer[layer] == int(expected.sum())
        assert one.total_by_layer[layer] == int(own.sum())
        assert blocked is None or not (blocked & ~own).any(), "only edges that exist are drawn"
        assert blocked is None or int(blocked.sum()) == one.budget[layer]
    assert one.edges_total == sum(int(own.sum()) for own in own_masks()) != plain.edges_total
    empty = sum(int((~one.token_mask(layer).any(1)).sum()) for layer in range(LAYERS))
    assert one.n_empty_rows == empty


def test_random_blocking_cuts_as_many_of_the_models_edges_as_effective():
    effective, chance = (
        parse_intervention(text).compile(LAYOUT, LAYERS, RANGES, "q", OWN)
        for text in ("effective", "random:seed=1")
    )
    most = [int(own[3:, 3:].sum()) for own in own_masks()]
    share = (effective.edges_total - effective.edges_kept) // LAYERS
    assert all(
        cut in (min(share, own), min(share + 1, own))
        for cut, own in zip(chance.budget, most, strict=True)
    )
    first = parse_intervention("random:seed=1").compile(LAYOUT, LAYERS, RANGES, "q")
    causal = OwnEdges([CAUSAL] * LAYERS)
    again = parse_intervention("random:seed=1").compile(LAYOUT, LAYERS, RANGES, "q", causal)
    assert causal.causal and not OWN.causal
    for layer in range(LAYERS):
        assert torch.equal(first.blocked(layer), again.blocked(layer)), "the same draw of the same"
    np.testing.assert_array_equal(first.edges_by_layer, again.edges_by_layer)

"""What all masks share: stretches, queries without keys, explicit masks, and equal random edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mapflow.model_adapters.interventions import (
    BatchMasks,
    Segment,
    TokenLayout,
    parse_intervention,
)
from mapflow.model_adapters.interventions.kernels import grouped_attention, query_groups
from mapflow.model_adapters.interventions.kernels.edges import DenseEdges, Edges
from mapflow.model_adapters.interventions.language.segment_masks import stretches, without_keys

LAYOUT = TokenLayout.from_runs(
    [
        (Segment("system"), 3),
        (Segment("frame", 0), 4),
        (Segment("template"), 1),
        (Segment("frame", 1), 4),
        (Segment("stem"), 2),
        (Segment("template"), 3),
        (Segment("last"), 1),
    ]
)
N = len(LAYOUT)


def test_stretches_are_consecutive_positions_of_one_segment():
    segment, sizes = stretches(LAYOUT.segment_of)
    assert segment.tolist() == [0, 1, 2, 3, 4, 2, 5] and sizes.tolist() == [3, 4, 1, 4, 2, 3, 1]
    assert (np.repeat(segment, sizes) == LAYOUT.segment_of).all()


@pytest.mark.parametrize(
    "text", ["full", "all->all", "all->system", "keep:video->last", "all->template+stem->stem"]
)
def test_queries_without_keys_are_those_whose_mask_is_empty(text):
    compiled = parse_intervention(text).compile(LAYOUT, 1)
    segment, sizes = stretches(LAYOUT.segment_of)
    empty = np.repeat(without_keys(compiled.allowed[:, segment][:, :, segment])[0], sizes)
    assert (empty == ~np.asarray(compiled.token_mask(0)).any(-1)).all()
    assert compiled.n_empty_rows == empty.sum()
    assert (BatchMasks.of([compiled]).dense(0, N, N).empty is not None) == bool(empty.any())


@pytest.mark.parametrize("text", ["full", "video->last@2", "random:ratio=0.3,seed=1"])
def test_an_explicit_mask_exists_also_where_nothing_is_cut(text):
    compiled = parse_intervention(text).compile(LAYOUT, 2, None, "q")
    masks = BatchMasks.of([compiled])
    for layer in range(2):
        edges = masks.dense(layer, N, N)
        assert isinstance(edges, DenseEdges)
        assert torch.equal(edges.allowed[0, 0], torch.as_tensor(compiled.token_mask(layer)))


def test_both_forms_of_a_layer_s_edges_have_one_interface(monkeypatch):
    monkeypatch.setattr(grouped_attention, "MANY_POSITIONS", 1)
    monkeypatch.setattr(query_groups, "FEW_QUERIES", 1)
    monkeypatch.setattr(query_groups, "LEAST_SHARE", 0)
    compiled = parse_intervention("cross-frame+video->stem").compile(LAYOUT, 1)
    masks = BatchMasks.of([compiled])
    grouped, dense = masks.mask(0, N, N), masks.dense(0, N, N)
    assert isinstance(grouped, grouped_attention.GroupedEdges) and isinstance(grouped, Edges)
    padding = torch.ones(1, 1, N, N, dtype=torch.bool)
    padding[..., :2] = False
    for one in (grouped, grouped & padding):
        want = dense if one is grouped else dense & padding
        assert torch.equal(one.allowed, want.allowed)
        assert one.to(torch.device("cpu")) is one


def test_equal_draws_cut_equal_edges():
    def compiled(text: str, key: str = "q"):
        return parse_intervention(text).compile(LAYOUT, 2, None, key)

    one, same = compiled("random:ratio=0.2,seed=1"), compiled("random:ratio=0.2,seed=1")
    assert one.draw(0) == same.draw(0) is not None
    assert torch.equal(one.blocked(0), same.blocked(0))
    for other in (compiled("random:ratio=0.2,seed=2"), compiled("random:ratio=0.2,seed=1", "r")):
        assert one.draw(0) != other.draw(0)
    assert compiled("video->last").draw(0) is None

"""Attention group by group equals the reference under the whole mask, for any cuts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import few, layout_of, prompts
from test_attention import TOLERANCE, families
from tiny_models import embeddings, tiny

from mapflow.model_adapters.interventions import (
    Decoder,
    DecoderInputs,
    Segment,
    TokenLayout,
    parse_intervention,
)
from mapflow.model_adapters.interventions.execution import incremental
from mapflow.model_adapters.interventions.execution.batch_masks import BatchMasks
from mapflow.model_adapters.interventions.kernels import grouped_attention as grouped
from mapflow.model_adapters.interventions.kernels import query_groups
from mapflow.model_adapters.interventions.kernels.grouped_attention import (
    GroupedEdges,
    grouped_attention,
)
from mapflow.model_adapters.interventions.kernels.reference import eager_attention
from mapflow.model_adapters.interventions.language.intervention import Compiled
from mapflow.model_adapters.interventions.language.pathways import PathwayRanges

PATHWAYS = PathwayRanges.from_mapping(
    {"cross_frame": "1-2", "video_to_question": "2-3", "question_to_last": "3-4"}, "here"
)
VIDEO = TokenLayout.from_runs(
    [
        (Segment("system"), 5),
        *((Segment("frame", i), 6) for i in range(5)),
        (Segment("stem"), 4),
        *((Segment("option", i), 2) for i in range(2)),
        (Segment("template"), 3),
        (Segment("last"), 1),
    ],
    true_option=0,
)


@pytest.fixture
def everywhere(monkeypatch):
    """Groups of any size, in prompts of any length."""
    monkeypatch.setattr(query_groups, "FEW_QUERIES", 1)
    monkeypatch.setattr(grouped, "MANY_POSITIONS", 1)


@st.composite
def reading_runs(draw):
    """(which run reads which, sizes): anything, but often what policies make, rows that repeat."""
    n = draw(st.integers(1, 7))
    sizes = draw(st.lists(st.sampled_from([1, 2, 2, 2, 3]), min_size=n, max_size=n))
    free = draw(st.lists(st.booleans(), min_size=n * n, max_size=n * n))
    allowed = np.array(free).reshape(n, n)
    for run in range(1, n):
        kind = draw(st.sampled_from(["free", "as before", "as before and it"]))
        if kind != "free":
            allowed[run, : run - 1] = allowed[run - 1, : run - 1]
            allowed[run, run - 1] = kind == "as before and it"
            allowed[run, run] = allowed[run - 1, run - 1]
    return allowed, np.array(sizes)


@given(reading_runs(), st.integers(1, 4))
def test_groups_and_what_is_left_are_all_rows_once(case, fewest):
    allowed, sizes = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(query_groups, "FEW_QUERIES", fewest)
        patch.setattr(query_groups, "LEAST_SHARE", 0)
        groups, left = query_groups.query_groups(allowed, sizes)
    spans = sorted([(group.start, group.stop) for group in groups] + left)
    assert [row for span in spans for row in range(*span)] == list(range(sizes.sum()))
    assert all(group.stop - group.start >= fewest for group in groups)
    run = np.repeat(np.arange(len(sizes)), sizes)
    causal = allowed[run][:, run] & np.tri(len(run), dtype=bool)
    for group in groups:
        for stretch in range(group.count):
            begin = group.start + stretch * group.size
            expected = np.zeros((group.size, len(run)), dtype=bool)
            for first, behind in group.before:
                expected[:, first:behind] = True
            expected[:, begin : begin + group.size] |= group.own & np.tri(group.size, dtype=bool)
            assert (causal[begin : begin + group.size] == expected).all()


@given(reading_runs())
def test_groups_take_most_rows_or_none(case):
    allowed, sizes = case
    groups, left = query_groups.query_groups(allowed, sizes)
    taken = sum(group.stop - group.start for group in groups)
    assert taken >= sizes.sum() / 2 if groups else left == [(0, sizes.sum())]


def test_frames_that_are_apart_are_one_batch_and_frames_together_one_stretch():
    apart, together = np.eye(6, dtype=bool), np.tri(6, dtype=bool)
    apart[:, 0] = True
    sizes = np.array([70, *[40] * 5])
    groups, left = query_groups.query_groups(together, sizes)
    assert not left and [(group.start, group.stop, group.before) for group in groups] == [
        (0, 270, ())
    ]
    groups, left = query_groups.query_groups(apart, sizes)
    # the first frame reads all before it, so it belongs to the system's stretch
    assert not left and [(group.count, group.size, group.before) for group in groups] == [
        (1, 110, ()),
        (4, 40, ((0, 70),)),
    ]


@given(reading_runs(), st.sampled_from([(4, 4), (4, 2), (2, 1)]), st.integers(1, 3))
@few
def test_grouped_attention_equals_the_reference(case, heads, fewest):
    allowed, sizes = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(query_groups, "FEW_QUERIES", fewest)
        patch.setattr(query_groups, "LEAST_SHARE", 0)
        groups, left = query_groups.query_groups(allowed, sizes)
    run = np.repeat(np.arange(len(sizes)), sizes)
    whole = torch.from_numpy(allowed[run][:, run] & np.tri(len(run), dtype=bool))[None, None]
    edges = GroupedEdges(groups, left, lambda rows: whole[:, :, rows], torch.device("cpu"))
    assert (edges.allowed == whole).all()
    draw = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(1, each, len(run), 8, generator=draw) for each in (heads[0], *heads[1:] * 2)
    )
    module = torch.nn.Module()
    module.num_key_value_groups = heads[0] // heads[1]
    found = grouped_attention(module, query, key, value, edges, scaling=0.3)
    expected, _ = eager_attention(query, key, value, whole, 0.3)
    torch.testing.assert_close(found, expected, **TOLERANCE)


def policies(layout: TokenLayout) -> list[Compiled]:
    texts = (
        "effective",
        "effective-strict",
        "cross-frame",
        "video->question@2-3",
        "all->last+video->video@3-4",
    )
    return [parse_intervention(text).compile(layout, 4, PATHWAYS) for text in texts]


@given(families)
@few
def test_runs_with_groups_equal_runs_without(family):
    model, own = tiny(family, 4), policies(VIDEO)
    decoder, inputs = Decoder(model), DecoderInputs(embeddings(len(VIDEO), seed=2))
    expected = torch.stack([decoder.answer_logits([inputs], [[one]])[0][0] for one in own])
    with pytest.MonkeyPatch.context() as patch:
        for module, name in (
            (query_groups, "FEW_QUERIES"),
            (grouped, "MANY_POSITIONS"),
        ):
            patch.setattr(module, name, 1)
        assert any(
            isinstance(BatchMasks.of([one]).mask(layer, len(VIDEO), len(VIDEO)), GroupedEdges)
            for one in own
            for layer in range(4)
        )
        one_by_one = torch.stack([decoder.answer_logits([inputs], [[one]])[0][0] for one in own])
        alone = torch.stack([incremental.answer_logits(decoder, inputs, [one])[0] for one in own])
        together = incremental.answer_logits(decoder, inputs, own)
        written = [decoder.generate(inputs, [one], 1)[1][0] for one in own]
    for found in (one_by_one, alone, together, torch.stack(written)):
        torch.testing.assert_close(found, expected, **TOLERANCE)


@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("text", ["effective", "effective-strict", "cross-frame"])
def test_no_mask_of_all_rows_is_made(text, monkeypatch):
    """The point of groups: rows by keys only for text, whose rows are few."""
    monkeypatch.setattr(query_groups, "FEW_QUERIES", 6)
    own = parse_intervention(text).compile(VIDEO, 4, PATHWAYS)
    for layer in range(4):
        edges = BatchMasks.of([own]).mask(layer, len(VIDEO), len(VIDEO))
        if isinstance(edges, GroupedEdges):
            assert all(stop <= 5 or start >= 35 for start, stop in edges.rest)  # no frame
            assert (edges.allowed[0, 0] == own.token_mask(layer)).all()


@given(prompts(max_frames=3))
def test_a_padding_mask_besides_goes_through_the_whole_mask(prompt):
    layout = layout_of(prompt)
    own = parse_intervention("all->last").compile(layout, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grouped, "MANY_POSITIONS", 1)
        edges = BatchMasks.of([own]).mask(0, len(layout), len(layout))
    padding = torch.ones(1, 1, len(layout), len(layout), dtype=torch.bool)
    padding[..., 0] = False
    assert edges is not None
    assert ((edges & padding).allowed == edges.allowed & padding).all()

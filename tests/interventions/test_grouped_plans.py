"""What plans hand to attention as groups is what the policy allows, position by position; also
where hardly anything groups.
"""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from naive import allowed
from strategies import cases, compile_spec, few, quick
from test_attention import TOLERANCE, families
from tiny_models import embeddings, tiny
from torch import Tensor, nn
from torch.nn.attention.flex_attention import flex_attention

from mapflow.model_adapters.interventions import (
    BatchMasks,
    Decoder,
    DecoderInputs,
    Segment,
    TokenLayout,
    parse_intervention,
)
from mapflow.model_adapters.interventions.execution import incremental
from mapflow.model_adapters.interventions.kernels import (
    attention,
    dense_attention,
    query_groups,
)
from mapflow.model_adapters.interventions.kernels import grouped_attention as grouped
from mapflow.model_adapters.interventions.kernels.edges import DenseEdges
from mapflow.model_adapters.interventions.kernels.grouped_attention import (
    GroupedEdges,
    grouped_attention,
)
from mapflow.model_adapters.interventions.kernels.reference import eager_attention

HEADS = st.sampled_from([(4, 4), (4, 2), (4, 1)])
UNEQUAL = TokenLayout.from_runs(
    [
        (Segment("system"), 4),
        *((Segment("frame", i), size) for i, size in enumerate([3, 5, 4, 6, 5])),
        (Segment("stem"), 3),
        (Segment("last"), 1),
    ]
)


@contextmanager
def grouping(fewest: int = 1, most: int = 8):
    """Groups in prompts of any length."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(query_groups, "FEW_QUERIES", fewest)
        patch.setattr(query_groups, "MOST_GROUPS", most)
        patch.setattr(query_groups, "LEAST_SHARE", 0)
        patch.setattr(grouped, "MANY_POSITIONS", 1)
        yield


def tensors(n: int, heads: tuple[int, int]) -> tuple[nn.Module, list[Tensor]]:
    draw, module = torch.Generator().manual_seed(n), nn.Module()
    module.num_key_value_groups = heads[0] // heads[1]
    counts = (heads[0], heads[1], heads[1])
    return module, [torch.randn(1, count, n, 8, generator=draw) for count in counts]


def timed_frames(n_frames: int, size: int = 4) -> TokenLayout:
    """The time stands before every frame, as text that no policy takes for video."""
    pairs = [
        run
        for i in range(n_frames)
        for run in ((Segment("template"), 1), (Segment("frame", i), size))
    ]
    return TokenLayout.from_runs(
        [(Segment("system"), 2), *pairs, (Segment("stem"), 3), (Segment("last"), 1)]
    )


@given(cases(max_layers=4), HEADS, st.integers(1, 4), st.integers(1, 8))
@quick
def test_groups_of_any_policy_equal_the_reference_under_its_definition(case, heads, fewest, most):
    """Effective, strict, routes, knockouts, keep; frames of unequal sizes, text between them, rows
    that read nothing.
    """
    prompt, spec, n_layers = case
    compiled, n = compile_spec(prompt, spec, n_layers), len(prompt)
    module, (query, key, value) = tensors(n, heads)
    with grouping(fewest, most):
        masks = BatchMasks.of([compiled])
        every_layer = [masks.mask(layer, n, n) for layer in range(n_layers)]
    for layer, edges in enumerate(every_layer):
        if not isinstance(edges, GroupedEdges):
            continue  # nothing cut, or nothing that groups
        assert len(edges.groups) <= most
        definition = torch.tensor(allowed(prompt, spec, layer + 1, n_layers))[None, None]
        found = grouped_attention(module, query, key, value, edges, scaling=0.4)
        expected, _ = eager_attention(query, key, value, definition, 0.4)
        torch.testing.assert_close(found, expected, **TOLERANCE)
        assert (found[~definition.any(-1).transpose(1, 2).expand(found.shape[:3])] == 0).all()


@given(families, cases(max_layers=3, max_frames=3))
@few
def test_answers_with_groups_equal_answers_without(family, case):
    prompt, spec, n_layers = case
    compiled = compile_spec(prompt, spec, n_layers)
    decoder, inputs = (
        Decoder(tiny(family, n_layers)),
        DecoderInputs(embeddings(len(prompt), seed=5)),
    )
    expected = decoder.answer_logits([inputs], [[compiled]])[0]
    used: list[GroupedEdges] = []

    def noted(module, query, key, value, edges, **options) -> Tensor:
        used.append(edges)
        return grouped_attention(module, query, key, value, edges, **options)

    with grouping(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "grouped_attention", noted)
        torch.testing.assert_close(
            decoder.answer_logits([inputs], [[compiled]])[0], expected, **TOLERANCE
        )
        torch.testing.assert_close(
            incremental.answer_logits(decoder, inputs, [compiled]), expected, **TOLERANCE
        )
    for edges in used:  # a CPU's sdpa would forgive a row without a key, not every kernel does
        assert edges.may_be_empty or edges.allowed.any(-1).all()


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize(
    "layout", [UNEQUAL, timed_frames(6)], ids=["unequal frames", "timed frames"]
)
@pytest.mark.parametrize(
    "text", ["cross-frame", "cross-frame+all->stem", "all->frame[3]+cross-frame"]
)
@pytest.mark.parametrize("heads", [(4, 4), (4, 2)])
def test_many_rows_that_group_with_none_go_by_blocks(monkeypatch, layout, text, heads):
    """Otherwise sdpa would compute every pair of them; kernels uncompiled, as compiling takes
    long.
    """
    by_blocks = []

    def counted(query: Tensor, *others, **options) -> Tensor:
        by_blocks.append(query.shape[2])
        return flex_attention(query, *others, **options)

    monkeypatch.setattr(dense_attention, "block_sparse_pays", lambda query, key: True)
    monkeypatch.setattr(dense_attention, "_kernel", lambda: counted)
    compiled, n = parse_intervention(text).compile(layout, 1), len(layout)
    with grouping():
        edges = BatchMasks.of([compiled]).mask(0, n, n)
    assert isinstance(edges, GroupedEdges)
    module, (query, key, value) = tensors(n, heads)
    query, key, value = (
        torch.cat([part, part.flip(-1)], -1) for part in (query, key, value)
    )  # 16 a head
    found = grouped_attention(module, query, key, value, edges, scaling=0.4)
    expected, _ = eager_attention(query, key, value, compiled.token_mask(0)[None, None], 0.4)
    torch.testing.assert_close(found, expected, **TOLERANCE)
    assert by_blocks == [sum(stop - start for start, stop in edges.rest)]


def test_a_layer_makes_few_calls_however_many_frames_differ():
    """Frames that read the times before them, but no frames, are a group each."""
    layout = timed_frames(40)
    compiled, n = parse_intervention("video->video+cross-frame").compile(layout, 1), len(layout)
    with grouping():
        edges = BatchMasks.of([compiled]).mask(0, n, n)
    assert isinstance(edges, GroupedEdges)
    assert len(edges.groups) == query_groups.MOST_GROUPS
    assert (edges.allowed[0, 0] == compiled.token_mask(0)).all()


def test_a_prompt_without_groups_keeps_its_mask():
    """Then one mask, made as always, costs less than an assembly of one piece."""
    layout = timed_frames(3)
    compiled, n = parse_intervention("system->all").compile(layout, 1), len(layout)
    with grouping(fewest=n + 1):
        assert type(BatchMasks.of([compiled]).mask(0, n, n)) is DenseEdges


@pytest.mark.parametrize("text, empty", [("cross-frame", False), ("all->stem", True)])
def test_rows_without_a_key_are_looked_for_where_there_may_be_some(text, empty):
    compiled, n = parse_intervention(text).compile(UNEQUAL, 1), len(UNEQUAL)
    with grouping(fewest=4):
        edges = BatchMasks.of([compiled]).mask(0, n, n)
    assert isinstance(edges, GroupedEdges) and edges.rest
    assert edges.rest_edges.may_be_empty == empty and (edges.rest_edges.empty is not None) == empty

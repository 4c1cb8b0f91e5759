"""Compiled masks, counts and empty rows against the definition in loops over positions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from naive import Spec, Term, allowed, window
from strategies import (
    STYLES,
    as_ranges,
    cases,
    compile_spec,
    layout_of,
    pathway_ranges,
    prompts,
    quick,
    routes,
)

from mapflow.model_adapters.interventions import (
    LayerSpan,
    PathwayRanges,
    Segment,
    TokenLayout,
    Window,
    parse_intervention,
)
from mapflow.model_adapters.interventions.language.segment_masks import causal_pairs
from mapflow.results.contract.errors import MapflowError


@given(cases())
@quick
def test_masks_equal_the_definition(case):
    prompt, spec, n_layers = case
    compiled = compile_spec(prompt, spec, n_layers)
    for layer in range(n_layers):
        assert compiled.token_mask(layer).tolist() == allowed(prompt, spec, layer + 1, n_layers)


@given(st.data(), st.sampled_from(["effective", "effective-strict"]))
@quick
def test_the_papers_policy_equals_the_definition(data, kind):
    prompt, n_layers = data.draw(prompts(usual=True)), data.draw(st.integers(3, 5))
    spec = Spec((Term(kind, ranges=data.draw(pathway_ranges(n_layers))),))
    compiled = compile_spec(prompt, spec, n_layers)
    for layer in range(n_layers):
        assert compiled.token_mask(layer).tolist() == allowed(prompt, spec, layer + 1, n_layers)


@given(cases(random=True))
@quick
def test_counts_equal_mask_sums(case):
    prompt, spec, n_layers = case
    compiled = compile_spec(prompt, spec, n_layers, key="q7")
    masks = [compiled.token_mask(layer) for layer in range(n_layers)]
    assert compiled.edges_by_layer.tolist() == [int(mask.sum()) for mask in masks]
    assert compiled.edges_kept == sum(int(mask.sum()) for mask in masks)
    assert compiled.edges_total == n_layers * sum(range(1, len(prompt) + 1))


@given(cases())
@quick
def test_empty_rows_are_rows_without_a_key(case):
    prompt, spec, n_layers = case
    masks = [allowed(prompt, spec, layer + 1, n_layers) for layer in range(n_layers)]
    assert compile_spec(prompt, spec, n_layers).n_empty_rows == sum(
        not any(row) for m in masks for row in m
    )


@given(st.data())
@quick
def test_keep_and_cut_are_complements(data):
    prompt, n_layers = data.draw(prompts()), data.draw(st.integers(1, 5))
    terms = tuple(data.draw(st.lists(routes(prompt, n_layers), min_size=1, max_size=3)))
    cut, keep = (compile_spec(prompt, Spec(terms, keep), n_layers) for keep in (False, True))
    causal = torch.ones(len(prompt), len(prompt), dtype=torch.bool).tril()
    for layer in range(n_layers):
        assert torch.equal(cut.token_mask(layer) ^ keep.token_mask(layer), causal)
    assert cut.edges_kept + keep.edges_kept == cut.edges_total


@given(cases(random=True))
@quick
def test_an_edge_is_cut_where_any_policy_cuts_it(case):
    prompt, spec, n_layers = case
    if spec.keep:
        return
    whole = compile_spec(prompt, spec, n_layers, "k")
    parts = [
        compile_spec(prompt, Spec((t,), default_ranges=spec.default_ranges), n_layers, "k")
        for t in spec.terms
    ]
    for layer in range(n_layers):
        both = torch.ones(len(prompt), len(prompt), dtype=torch.bool).tril()
        for part in parts:
            both &= part.token_mask(layer)
        assert torch.equal(whole.token_mask(layer), both)


@given(prompts())
@quick
def test_causal_pairs_count_single_pairs(prompt):
    layout = layout_of(prompt)
    segment = layout.segment_of.tolist()
    pairs = causal_pairs(layout.segment_of, len(layout.segments))
    for target in range(len(layout.segments)):
        for source in range(len(layout.segments)):
            counted = sum(
                segment[q] == target and segment[k] == source
                for q in range(len(segment))
                for k in range(q + 1)
            )
            assert pairs[target, source] == counted


@pytest.mark.parametrize("style", STYLES)
def test_windows_follow_the_paper(style):
    for n_layers in range(1, 12):
        for layer in range(1, n_layers + 1):
            for size in range(1, 15):
                found = Window(style, layer, size).indices(n_layers)
                assert {index + 1 for index in found} == window(style, layer, size, n_layers)
                assert sorted(set(found)) == list(found)


def test_the_papers_own_windows():
    """Odd windows are symmetric, even ones lean to earlier layers (golden README, quirk 4)."""
    assert Window("center", 12, 9).indices(32) == list(range(7, 16))
    assert Window("center", 12, 4).indices(32) == [9, 10, 11, 12]
    assert Window("center", 1, 9).indices(32) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "expression", ["video->last@3-9", "video->last@9", "knockout:video->last@center=9"]
)
def test_layers_that_the_model_lacks_are_refused(expression):
    layout = TokenLayout.from_runs([(Segment("frame", 0), 2), (Segment("last"), 1)])
    with pytest.raises(MapflowError, match=r"layer 9 .* 1\.\.8"):
        parse_intervention(expression).compile(layout, 8)


def test_layer_zero_is_refused():
    layout = TokenLayout.from_runs([(Segment("frame", 0), 2), (Segment("last"), 1)])
    with pytest.raises(MapflowError, match="layer 0"):
        parse_intervention("knockout:video->last@center=0").compile(layout, 8)
    with pytest.raises(MapflowError, match="0-3"):
        LayerSpan(0, 3)


@pytest.mark.parametrize(
    "name", ["options", "true_option", "false_options", "option[0]", "frame[2]"]
)
def test_what_the_prompt_lacks_is_an_error_naming_what_it_has(name):
    layout = TokenLayout.from_runs(
        [(Segment("frame", 0), 2), (Segment("stem"), 2), (Segment("last"), 1)]
    )
    with pytest.raises(MapflowError, match=r"no '" + name.replace("[", r"\[") + "'.*stem, last"):
        parse_intervention(f"{name}->last").compile(layout, 4)


def test_effective_without_ranges_is_an_error():
    layout = TokenLayout.from_runs(
        [(Segment("frame", 0), 2), (Segment("stem"), 2), (Segment("last"), 1)]
    )
    for expression in ("effective", "effective-strict", "random"):
        with pytest.raises(MapflowError, match="ranges"):
            parse_intervention(expression).compile(layout, 4)


@given(prompts())
@quick
def test_names_select_their_positions(prompt):
    layout = layout_of(prompt)
    assert len(layout) == len(prompt)
    for name in (
        "all",
        "system",
        "video",
        "question",
        "stem",
        "options",
        "true_option",
        "frame[0]",
        "last",
    ):
        if prompt.all_called(name):
            assert layout.positions(name).tolist() == prompt.all_called(name)
    assert layout.sizes.sum() == len(prompt)
    assert layout.n_frames == len({index for kind, index in prompt.positions if kind == "frame"})


SEVEN_B = PathwayRanges(LayerSpan(6, 15), LayerSpan(6, 20), LayerSpan(16, 25))


def seven_b_layout(n: int, system: int = 54) -> TokenLayout:
    """A LLaVA-NeXT-7B prompt of n tokens in the paper's protocol: 8 frames of 144 tokens between
    the texts.
    """
    template = 15
    question = n - system - 8 * 144 - 4 - template - 1
    frames = [(Segment("frame", i), 144) for i in range(8)]
    texts = [(Segment("label"), 3), (Segment("stem"), question - 23), (Segment("option", 0), 10)]
    texts += [(Segment("option", 1), 10), (Segment("template"), template), (Segment("last"), 1)]
    runs = [(Segment("system"), system), *frames, (Segment("template"), 4), *texts]
    return TokenLayout.from_runs(runs, true_option=0)


def test_the_papers_edge_counts():
    """Table 3: 25.7M -> 10.8M edges, 42 %. The table does not say how its prompts split into system
    text and question: n follows from 25.7M; 10.8M lies between the splits that are possible, and
    close to each of them.
    """
    n = next(n for n in range(2000) if 32 * n * (n + 1) // 2 >= 25_700_000)
    kept = []
    for system in range(35, 60):
        compiled = parse_intervention("effective").compile(seven_b_layout(n, system), 32, SEVEN_B)
        assert compiled.edges_total == pytest.approx(25.7e6, abs=0.05e6)
        assert compiled.edges_kept == pytest.approx(10.8e6, rel=0.04)
        kept.append(compiled.edges_kept)
    assert min(kept) < 10.8e6 < max(kept)


def test_strict_differs_from_effective_in_the_template_alone():
    layout = seven_b_layout(1267)
    faithful, strict = (
        parse_intervention(e).compile(layout, 32, SEVEN_B)
        for e in ("effective", "effective-strict")
    )
    changed = np.argwhere((faithful.allowed ^ strict.allowed).any(0)).tolist()
    assert {layout.segments[t].kind for t, _ in changed} == {"template"}
    assert {layout.segments[s].kind for _, s in changed} == {"frame"}


def test_ranges_of_the_policy_win_over_the_models():
    term = Term("effective", ranges=((1, 2), (2, 3), (3, 4)))
    layout = seven_b_layout(1267)
    own = parse_intervention(str(term)).compile(layout, 32, SEVEN_B)
    given_ranges = parse_intervention("effective").compile(layout, 32, as_ranges(term.ranges or ()))
    assert np.array_equal(own.allowed, given_ranges.allowed)

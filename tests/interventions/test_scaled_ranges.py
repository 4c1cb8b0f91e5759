"""Published layer ranges on a model of another depth: `effective:scale=MODEL`."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from strategies import quick

from mapflow.model_adapters.checkpoints.pathways import PUBLISHED, named_pathways, scaled_pathways
from mapflow.model_adapters.interventions import (
    LayerSpan,
    PathwayRanges,
    Segment,
    TokenLayout,
    parse_intervention,
)
from mapflow.results.contract.errors import MapflowError

MODELS = sorted(file.stem for file in PUBLISHED.glob("*.yaml"))
LAYOUT = TokenLayout.from_runs(
    [
        (Segment("system"), 2),
        (Segment("frame", 0), 3),
        (Segment("frame", 1), 3),
        (Segment("stem"), 2),
        (Segment("template"), 2),
        (Segment("last"), 1),
    ]
)


def depth(model: str) -> int:
    return yaml.safe_load((PUBLISHED / f"{model}.yaml").read_text())["layers"]


@pytest.mark.parametrize("model", MODELS)
def test_at_its_own_depth_a_models_ranges_are_its_own(model):
    assert scaled_pathways(model, depth(model)) == named_pathways(model)


@pytest.mark.parametrize("model", MODELS)
def test_at_twice_the_depth_every_layer_becomes_two(model):
    """By loops over layers: layer l of the published model stands for layers 2l - 1 and 2l."""
    before, after = named_pathways(model), scaled_pathways(model, 2 * depth(model))
    for name in ("cross_frame", "video_to_question", "question_to_last"):
        own, twice = getattr(before, name), getattr(after, name)
        doubled = [
            layer for one in range(own.first, own.last + 1) for layer in (2 * one - 1, 2 * one)
        ]
        assert list(range(twice.first, twice.last + 1)) == doubled


@quick
@given(st.data(), st.integers(1, 80), st.integers(1, 80))
def test_scaled_ranges_lie_in_the_model_and_keep_their_order(data, old, new):
    cuts = sorted(data.draw(st.lists(st.integers(1, old), min_size=2, max_size=2)))
    first = LayerSpan(1, cuts[0])
    second = LayerSpan(min(cuts[0] + 1, old), old)
    ranges = PathwayRanges(first, LayerSpan(*cuts), second).scaled(old, new)
    spans = (ranges.cross_frame, ranges.video_to_question, ranges.question_to_last)
    assert all(1 <= span.first <= span.last <= new for span in spans)
    assert spans[0].first == 1 and spans[2].last == new
    assert spans[0].last <= spans[2].last
    if new >= old and cuts[0] < old:  # nothing is squeezed away: neighbours stay neighbours
        assert spans[2].first == spans[0].last + 1


@pytest.mark.parametrize("policy", ["effective", "effective-strict", "random"])
def test_a_scaled_policy_cuts_what_its_explicit_form_cuts(policy):
    seed = ",seed=4" if policy == "random" else ""
    typed = parse_intervention(f"{policy}:scale=LLaVA-NeXT-7B-Video-FT{seed}")
    resolved = typed.resolve(scaled_pathways, 12)
    assert str(resolved) == str(typed) and parse_intervention(str(typed)) == typed
    assert typed.scaled_from == resolved.scaled_from == "LLaVA-NeXT-7B-Video-FT"
    ranges = scaled_pathways("LLaVA-NeXT-7B-Video-FT", 12)
    # 6-15, 6-20, 16-25 of 32 layers: (5, 15], (5, 20], (15, 25] times 12/32, rounded
    assert str(ranges) == "cross_frame=3-6,video_to_question=3-8,question_to_last=7-9"
    scaled = resolved.compile(LAYOUT, 12, None, key="q")
    explicit = parse_intervention(policy + (":seed=4" if seed else "")).compile(
        LAYOUT, 12, ranges, key="q"
    )
    for layer in range(12):
        assert scaled.token_mask(layer).equal(explicit.token_mask(layer))
    if policy != "random":
        assert resolved.describe(None) == f"{policy}:{ranges}"


def test_a_models_own_ranges_do_not_replace_borrowed_ones():
    own = PathwayRanges.from_mapping(
        dict.fromkeys(("cross_frame", "video_to_question", "question_to_last"), "1-2"), ""
    )
    typed = parse_intervention("effective:scale=LLaVA-NeXT-7B-Video-FT")
    with pytest.raises(MapflowError, match="not been resolved"):
        typed.compile(LAYOUT, 12, own)
    borrowed = typed.resolve(scaled_pathways, 12).compile(LAYOUT, 12, own)
    plain = parse_intervention("effective").compile(LAYOUT, 12, own)
    assert not np.array_equal(borrowed.allowed, plain.allowed)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("effective", "mapflow discover.*effective:scale=MODEL"),
        ("random", "mapflow discover.*random:scale=MODEL"),
    ],
)
def test_without_ranges_the_error_says_how_to_get_them(text, said):
    with pytest.raises(MapflowError, match=said):
        parse_intervention(text).compile(LAYOUT, 12, None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("effective:scale=", "names no model"),
        ("random:scale=", "names no model"),
        ("random:ratio=0.5,scale=X", "ratio=0.5 or scale=X, not both"),
        ("effective:scale=X,cross_frame=1-2", "lacks 'video_to_question'"),
    ],
)
def test_wrong_forms(text, said):
    with pytest.raises(MapflowError, match=said):
        parse_intervention(text)


def test_unknown_models_are_answered_with_the_published_ones():
    with pytest.raises(
        MapflowError, match=r"no layer ranges are known for 'Nobody'; published: .*VideoLLaMA3-7B"
    ):
        parse_intervention("effective:scale=Nobody").resolve(scaled_pathways, 12)


def test_own_files_scale_where_they_say_how_deep_their_model_is(tmp_path):
    ranges = "cross_frame: 1-2\nvideo_to_question: 2-3\nquestion_to_last: 4\n"
    (tmp_path / "pathways.yaml").write_text(ranges)
    with pytest.raises(MapflowError, match="cannot be scaled: add `layers:`"):
        scaled_pathways(str(tmp_path), 8)
    (tmp_path / "pathways.yaml").write_text(ranges + "layers: 4\n")
    assert (
        str(scaled_pathways(str(tmp_path), 8))
        == "cross_frame=1-4,video_to_question=3-6,question_to_last=7-8"
    )
    assert (
        str(named_pathways(str(tmp_path)))
        == "cross_frame=1-2,video_to_question=2-3,question_to_last=4"
    )
    (tmp_path / "pathways.yaml").write_text(ranges + "layers: many\n")
    with pytest.raises(MapflowError, match="layers='many' is not a number of layers"):
        named_pathways(str(tmp_path))

"""Reachability and liveness: against token-level propagation, and against a model that is really
run.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from naive import allowed, influenced
from strategies import as_ranges, cases, compile_spec, few, layout_of, names_in, quick
from tiny_models import embeddings, tiny_llama

from mapflow.model_adapters.interventions import (
    BatchMasks,
    Segment,
    TokenLayout,
    apply,
    certificate,
    parse_intervention,
    reachable,
)
from mapflow.model_adapters.interventions.language.liveness import live_row_layers, live_segments
from mapflow.model_adapters.interventions.language.reachability import STATIONS, layer_ranges


def masks_of(prompt, spec, n_layers):
    return [allowed(prompt, spec, layer, n_layers) for layer in range(1, n_layers + 1)]


@given(cases(), st.data())
@quick
def test_equals_propagation_over_tokens(case, data):
    prompt, spec, n_layers = case
    compiled = compile_spec(prompt, spec, n_layers)
    names = names_in(prompt)
    for _ in range(4):
        source, target = data.draw(st.sampled_from(names)), data.draw(st.sampled_from(names))
        informed = influenced(masks_of(prompt, spec, n_layers), prompt.all_called(source))
        assert reachable(compiled, source, target) == bool(
            informed & set(prompt.all_called(target))
        )


@given(cases(), st.data())
@quick
def test_a_certificate_is_empty_exactly_where_nothing_is_reachable(case, data):
    prompt, spec, n_layers = case
    compiled = compile_spec(prompt, spec, n_layers)
    stations = [name for name in STATIONS if prompt.all_called(name)]
    source = data.draw(st.sampled_from([s for s in stations if s != "last"]))
    target = data.draw(st.sampled_from([s for s in stations if s != source]))
    paths = certificate(compiled, source, target)
    assert bool(paths) == reachable(compiled, source, target)
    masks = masks_of(prompt, spec, n_layers)
    for path in paths:
        assert path.stations[0] == source and path.stations[-1] == target
        for (a, b), layers in zip(
            zip(path.stations, path.stations[1:], strict=False), path.layers, strict=True
        ):
            assert list(layers) == sorted(set(layers)) and layers, "each hop names its layers"
            for layer in layers:
                edges = ((q, k) for q in prompt.all_called(b) for k in prompt.all_called(a))
                assert any(masks[layer - 1][q][k] for q, k in edges), "and is really open there"


@given(cases(), st.data())
@quick
def test_closing_what_a_certificate_names_closes_the_way(case, data):
    """Cutting the last hop of every path, in the layers named, makes the target unreachable."""
    prompt, spec, n_layers = case
    paths = certificate(compile_spec(prompt, spec, n_layers))
    if spec.keep or not paths:
        return
    hops = {(path.stations[-2], layer) for path in paths for layer in path.layers[-1]}
    extra = "+".join(f"{station}->last@{layer}" for station, layer in sorted(hops))
    text = f"{spec}+{extra}" if spec.terms else extra
    closed = parse_intervention(text).compile(
        layout_of(prompt), n_layers, as_ranges(spec.default_ranges)
    )
    assert not reachable(closed, "video", "last")


def run(kind, size):
    """One run of a layout: frames of up to three positions, everything else as one segment."""
    return (
        [(Segment("frame", i // 3), 1) for i in range(size)]
        if kind == "frame"
        else [(Segment(kind), size)]
    )


def test_a_path_that_passes_a_station_twice_is_found():
    layout = TokenLayout.from_runs(
        [*run("frame", 2), *run("stem", 2), *run("template", 1), *run("option", 2), *run("last", 1)]
    )
    text = "keep:video->stem@1+stem->template@2+template->options@3+options->last@4"
    compiled = parse_intervention(text).compile(layout, 4)
    assert reachable(compiled, "video", "last")
    (path,) = certificate(compiled)
    assert path.stations == ("video", "question", "template", "question", "last")
    in_wrong_order = text.replace("options@3", "options@2")
    assert not certificate(parse_intervention(in_wrong_order).compile(layout, 4))


def test_the_papers_policy_leaks_through_the_template_and_strict_does_not():
    layout = TokenLayout.from_runs(
        [*run("system", 4), *run("frame", 6), *run("stem", 4), *run("template", 3), *run("last", 1)]
    )
    ranges = "cross_frame=2-3,video_to_question=2-4,question_to_last=5-7"
    leaky = certificate(parse_intervention(f"effective:{ranges}").compile(layout, 8))
    tight = certificate(parse_intervention(f"effective-strict:{ranges}").compile(layout, 8))
    assert {path.stations for path in leaky} >= {
        ("video", "template", "last"),
        ("video", "question", "last"),
    }
    leak = next(path for path in leaky if path.stations == ("video", "template", "last"))
    # what arrives in the last layer is not used afterwards; the first can carry nothing yet
    assert leak.layers == (tuple(range(1, 8)), tuple(range(2, 9)))
    assert str(leak) == (
        "video reaches last via template:"
        " video->template in layers 1-7, template->last in layers 2-8"
    )
    strict = next(path for path in tight if path.stations == ("video", "template", "last"))
    assert strict.layers[0] == (2, 3, 4), "strict: template reads video only where the question may"
    assert not certificate(
        parse_intervention(f"effective:{ranges}+video->template+video->question").compile(layout, 8)
    )


def test_direct_paths_and_ranges_in_words():
    layout = TokenLayout.from_runs([(Segment("frame", 0), 3), (Segment("last"), 1)])
    (path,) = certificate(parse_intervention("video->last@2").compile(layout, 4))
    assert str(path) == "video reaches last directly: video->last in layers 1, 3-4"
    assert layer_ranges((1, 2, 3, 7)) == "1-3, 7"


# --- on a model that runs ---


def last_hidden(model, embeds, compiled):
    with torch.no_grad(), apply(BatchMasks.of([compiled])):
        return model.model(inputs_embeds=embeds[None]).last_hidden_state[0]


@given(cases(max_layers=4, max_frames=2), st.data())
@few
def test_unreachable_means_bitwise_unchanged_and_reachable_means_changed(case, data):
    prompt, spec, n_layers = case
    model, compiled = tiny_llama(n_layers), compile_spec(prompt, spec, n_layers)
    names = names_in(prompt)
    source, target = data.draw(st.sampled_from(names)), data.draw(st.sampled_from(names))
    embeds = embeddings(len(prompt), seed=1)
    changed = embeds.clone()
    changed[prompt.all_called(source)] = embeddings(len(prompt), seed=2)[prompt.all_called(source)]
    before, after = (
        last_hidden(model, e, compiled)[prompt.all_called(target)] for e in (embeds, changed)
    )
    if reachable(compiled, source, target):
        assert (before - after).abs().max() > 1e-6
    else:
        assert torch.equal(before, after)


@given(cases(random=True, max_layers=4, max_frames=2), st.integers(0, 2**31))
@quick
def test_dead_rows_may_hold_anything(case, seed):
    """Replacing the output of every layer at dead rows by noise does not change the answer's row by
    one bit.
    """
    prompt, spec, n_layers = case
    model, compiled = tiny_llama(n_layers), compile_spec(prompt, spec, n_layers, "q")
    live = live_segments(compiled)
    layout = compiled.layout
    assert live.shape == (n_layers + 1, len(layout.segments))
    assert live_row_layers(compiled) == sum(
        int(live[d][layout.segment_of].sum()) for d in range(1, n_layers + 1)
    )
    noise = embeddings(len(prompt), seed)
    embeds = embeddings(len(prompt), seed=1)
    clean = last_hidden(model, embeds, compiled)[-1]

    def poison(depth: int):
        dead = torch.from_numpy(~live[depth][layout.segment_of])

        def hook(module, args, output):
            hidden = output if isinstance(output, torch.Tensor) else output[0]
            hidden = torch.where(dead[:, None], noise, hidden)
            return hidden if isinstance(output, torch.Tensor) else (hidden, *output[1:])

        return hook

    hooks = [
        layer.register_forward_hook(poison(d + 1)) for d, layer in enumerate(model.model.layers)
    ]
    try:
        dead = torch.from_numpy(~live[0][layout.segment_of])
        poisoned = torch.where(dead[:, None], noise, embeds)
        assert torch.equal(last_hidden(model, poisoned, compiled)[-1], clean)
    finally:
        for hook in hooks:
            hook.remove()


@given(cases())
@quick
def test_live_rows_are_those_that_reach_the_last_token(case):
    """Liveness and reachability are one walk in two directions, where no segment comes in several
    runs.
    """
    prompt, spec, n_layers = case
    compiled = compile_spec(prompt, spec, n_layers)
    masks = masks_of(prompt, spec, n_layers)
    live = live_segments(compiled)
    for depth in range(n_layers + 1):
        for s, segment in enumerate(compiled.layout.segments):
            own = [
                p
                for p, (kind, i) in enumerate(prompt.positions)
                if (kind, i) == (segment.kind, segment.index)
            ]
            needed = len(prompt) - 1 in influenced(masks[depth:], own)
            assert bool(live[depth, s]) >= needed, "never too few"
            if len({p - i for i, p in enumerate(own)}) == 1 and all_contiguous(prompt):
                assert bool(live[depth, s]) == needed, "and exact without interleaving"


def all_contiguous(prompt) -> bool:
    changes = sum(a != b for a, b in zip(prompt.positions, prompt.positions[1:], strict=False))
    return changes + 1 == len(set(prompt.positions))


@pytest.mark.parametrize("n_layers", [1, 3])
def test_a_full_run_needs_every_row_until_its_last_layer(n_layers):
    layout = TokenLayout.from_runs(
        [(Segment("frame", 0), 3), (Segment("stem"), 2), (Segment("last"), 1)]
    )
    compiled = parse_intervention("full").compile(layout, n_layers)
    assert live_row_layers(compiled) == 6 * (n_layers - 1) + 1

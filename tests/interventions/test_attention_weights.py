"""Attention weights of chosen positions, against the reference implementation on all positions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import compile_spec, few, prompts, specs
from test_attention import families, naive_masks
from tiny_models import embeddings, tiny

from mapflow.model_adapters.interventions import (
    BatchMasks,
    Decoder,
    DecoderInputs,
    Segment,
    TokenLayout,
    apply,
    attention_weights,
    parse_intervention,
)
from mapflow.model_adapters.interventions.execution import attention_weights as weights_module
from mapflow.model_adapters.interventions.kernels.attention import EAGER, SDPA
from mapflow.results.contract.errors import MapflowError

N_LAYERS = 4
LAYOUT = TokenLayout.from_runs(
    [
        (Segment("system"), 2),
        (Segment("frame", 0), 3),
        (Segment("frame", 1), 3),
        (Segment("stem"), 2),
        (Segment("last"), 1),
    ]
)
TOLERANCE = {"atol": 2e-6, "rtol": 1e-4}


def reference_weights(model, embeds, compiled) -> list[torch.Tensor]:
    """Every layer's `[head, query, key]`, from a run of the reference implementation."""
    model.set_attn_implementation(EAGER)
    caught: list[torch.Tensor] = []
    hooks = [
        layer.self_attn.register_forward_hook(lambda *seen: caught.append(seen[-1][1][0]))
        for layer in model.model.layers
    ]
    try:
        with apply(BatchMasks.of([compiled])):
            model.model(inputs_embeds=embeds[None], use_cache=False)
    finally:
        model.set_attn_implementation(SDPA)
        for hook in hooks:
            hook.remove()
    return caught


@given(families, prompts(max_frames=2), st.data())
@few
@torch.inference_mode()
def test_weights_are_those_of_the_reference(family, prompt, data):
    spec = data.draw(specs(prompt, N_LAYERS, random=True))
    rows = torch.tensor(sorted(data.draw(st.sets(st.integers(0, len(prompt) - 1), min_size=1))))
    compiled = compile_spec(prompt, spec, N_LAYERS, key="q")
    model, embeds = tiny(family, N_LAYERS), embeddings(len(prompt), seed=1)
    found = attention_weights(Decoder(model), DecoderInputs(embeds), compiled, rows)
    expected = reference_weights(model, embeds, compiled)
    assert found.shape == (N_LAYERS, len(prompt))
    torch.testing.assert_close(
        found, torch.stack([one[:, rows].mean((0, 1)) for one in expected]), **TOLERANCE
    )
    for own, mask in zip(found, naive_masks(prompt, spec, N_LAYERS, compiled), strict=True):
        reading = [row for row in rows.tolist() if any(mask[row])]
        assert float(own.sum()) == pytest.approx(len(reading) / len(rows), abs=1e-5)
        for key in range(len(prompt)):
            if not any(mask[row][key] for row in reading):
                assert own[key] == 0, "exactly: the edge does not exist"


def run(text: str, name: str = "last", by_head: bool = False) -> torch.Tensor:
    compiled = parse_intervention(text).compile(LAYOUT, N_LAYERS)
    decoder, embeds = Decoder(tiny("llama-gqa", N_LAYERS)), embeddings(len(LAYOUT), seed=2)
    return attention_weights(
        decoder, DecoderInputs(embeds), compiled, LAYOUT.positions(name), by_head=by_head
    )


def test_a_cut_route_is_zero_in_its_layers_alone():
    video = LAYOUT.positions("video")
    full, cut = run("full"), run("video->last@2-3")
    assert (cut[1:3, video] == 0).all() and (cut[[0, 3]][:, video] > 0).all()
    assert (full[:, video] > 0).all()
    torch.testing.assert_close(cut.sum(-1), torch.ones(N_LAYERS))
    torch.testing.assert_close(cut[0], full[0])


def test_the_first_rows_of_a_frame_read_no_later_frame():
    seen = run("full", "frame[0]")
    assert (seen[:, LAYOUT.positions("frame[1]")] == 0).all()


def test_many_rows_are_read_in_pieces(monkeypatch):
    whole = run("effective:cross_frame=1-2,video_to_question=2-3,question_to_last=3-4", "all")
    monkeypatch.setattr(weights_module, "AT_ONCE", 3)
    pieces = run("effective:cross_frame=1-2,video_to_question=2-3,question_to_last=3-4", "all")
    torch.testing.assert_close(pieces, whole)


def test_an_early_exit_has_as_many_layers_as_run():
    torch.testing.assert_close(run("early-exit@2"), run("full")[:2])


def test_the_run_itself_is_the_ordinary_one_and_leaves_nothing_behind():
    model, embeds = tiny("llama-gqa", N_LAYERS), embeddings(len(LAYOUT), seed=2)
    decoder = Decoder(model)
    compiled = parse_intervention("video->last").compile(LAYOUT, N_LAYERS)
    asked = [DecoderInputs(embeds)], [[compiled]]
    (before,) = decoder.answer_logits(*asked)
    model.set_attn_implementation(weights_module.ROWS)
    (meanwhile,) = decoder.answer_logits(*asked)
    model.set_attn_implementation(SDPA)
    attention_weights(decoder, asked[0][0], compiled, LAYOUT.positions("last"))
    assert model.model.config._attn_implementation == SDPA
    (after,) = decoder.answer_logits(*asked)
    assert torch.equal(before, meanwhile) and torch.equal(before, after)


@pytest.mark.parametrize(
    ("option", "value"), [("softcap", 0.5), ("s_aux", torch.tensor([0.5, -1.0, 2.0, 0.0]))]
)
def test_weights_are_those_of_the_models_own_scores(option, value, monkeypatch):
    """Caps and sinks change weights and output alike: the weights give the output."""
    original, seen = weights_module.recording_attention, []

    def unusual(module, query, key, value_states, mask, **options):
        options |= {option: value}
        output, _ = original(module, query, key, value_states, mask, **options)
        groups = query.shape[1] // key.shape[1]
        seen.append((output[0, -1], value_states[0].repeat_interleave(groups, 0)))
        return output, None

    monkeypatch.setitem(
        weights_module.AttentionInterface._global_mapping, weights_module.ROWS, unusual
    )
    for layer, weights in enumerate(run("full", by_head=True)):
        output, values = seen[layer]
        torch.testing.assert_close((weights[:, None] @ values)[:, 0], output)
        if option == "s_aux":
            assert (weights.sum(-1) < 1).all() and weights.sum(-1).min() < 0.99


def test_an_option_of_an_unknown_name_is_refused(monkeypatch):
    original = weights_module.recording_attention

    def unusual(*arguments, **options):
        return original(*arguments, **{**options, "indices": torch.ones(1)})

    monkeypatch.setitem(
        weights_module.AttentionInterface._global_mapping, weights_module.ROWS, unusual
    )
    with pytest.raises(MapflowError, match="LlamaAttention passes 'indices' to its attention"):
        run("full")
    assert tiny("llama-gqa", N_LAYERS).model.config._attn_implementation == SDPA

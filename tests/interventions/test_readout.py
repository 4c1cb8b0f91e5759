"""Hidden states of every layer, and what they would answer, against the slow twin cut off after
that layer.
"""

from __future__ import annotations

from copy import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import compile_spec, few, prompts, specs
from test_attention import TOLERANCE, families, naive_masks
from test_decoder import LAYOUT, hooks_of
from tiny_models import embeddings, tiny, twin_logits

from mapflow.model_adapters.interventions import Decoder, DecoderInputs, Intervention
from mapflow.model_adapters.interventions.execution.readout import (
    AT_ONCE,
    embedding_logits,
    final_norm,
    hidden_states,
    layer_inputs,
    layer_outputs,
    probabilities,
    top_k,
)
from mapflow.results.contract.errors import MapflowError


@given(families, prompts(max_frames=2), st.data())
@few
def test_each_layer_answers_as_a_model_that_ends_there(family, prompt, data):
    n_layers = data.draw(st.integers(1, 4))
    spec = data.draw(specs(prompt, n_layers, random=True))
    compiled = compile_spec(prompt, spec, n_layers, key="q")
    masks = naive_masks(prompt, spec, n_layers, compiled)
    model, embeds = tiny(family, n_layers), embeddings(len(prompt), seed=1)
    decoder = Decoder(model)
    hidden = hidden_states(decoder, DecoderInputs(embeds), compiled, torch.arange(len(prompt)))
    torch.testing.assert_close(hidden[0], embeds)
    outputs = layer_outputs(decoder, hidden)
    layers = model.model.layers
    try:
        for depth in range(1, n_layers + 1):
            model.model.layers = layers[:depth]
            theirs = twin_logits(
                copy(model), embeds, masks[:depth]
            )  # it keeps a double of each model it meets
            torch.testing.assert_close(
                decoder.logits(outputs[depth - 1]).double(), theirs, **TOLERANCE
            )
    finally:
        model.model.layers = layers
    assert not hooks_of(model)


@pytest.fixture
def run():
    """A decoder and the hidden states of two rows of a prompt."""
    decoder = Decoder(
        tiny("llama-gqa", 3, seed=3)
    )  # its own model: transformers leaves hooks behind, see below
    inputs = DecoderInputs(embeddings(len(LAYOUT), seed=2))
    compiled = Intervention().compile(LAYOUT, 3)
    return decoder, hidden_states(decoder, inputs, compiled, torch.tensor([6, 2]))


@torch.inference_mode()
def test_the_variants_of_the_authors_code(run):
    """Against transformers' own list of hidden states: embeddings, outputs of all layers but the
    last, final norm.
    """
    decoder, hidden = run
    embeds = embeddings(len(LAYOUT), seed=2)
    theirs = decoder.core(inputs_embeds=embeds[None], output_hidden_states=True).hidden_states
    *before, end = [states[0, [6, 2]] for states in theirs]
    torch.testing.assert_close(hidden[:-1], torch.stack(before))
    torch.testing.assert_close(
        layer_outputs(decoder, hidden, norm=False), torch.stack([*before[1:], end])
    )
    torch.testing.assert_close(layer_inputs(decoder, hidden), torch.stack([*before[:-1], end]))
    torch.testing.assert_close(
        embedding_logits(decoder)(end), end @ decoder.core.get_input_embeddings().weight.T
    )
    assert not torch.allclose(layer_outputs(decoder, hidden)[:-1], torch.stack(before[1:]))


def test_top_k_takes_rows_in_parts(run):
    decoder, hidden = run
    many = hidden.repeat(1, AT_ONCE, 1)
    ids, found = top_k(decoder.logits, many, 4)
    every = probabilities(decoder.logits, many)
    torch.testing.assert_close(found, every.sort(-1, descending=True).values[..., :4])
    torch.testing.assert_close(every.gather(-1, ids), found)


def test_a_model_without_a_final_norm_is_refused():
    decoder = Decoder(tiny("llama-gqa", 1, seed=9))
    norm = decoder.core.norm
    del decoder.core.norm
    try:
        with pytest.raises(MapflowError, match="has no module 'norm' after its layers"):
            final_norm(decoder)
    finally:
        decoder.core.norm = norm


def test_hooks_are_removed_by_an_exception(run):
    decoder, _ = run
    compiled, before = Intervention().compile(LAYOUT, 3), hooks_of(decoder.model)
    with pytest.raises(Exception, match=r"."):
        hidden_states(
            decoder, DecoderInputs(torch.zeros(len(LAYOUT), 7)), compiled, torch.tensor([0])
        )
    assert hooks_of(decoder.model) == before

"""Caches without dead keys: what is kept is what the last row may read, and steps compute what whole caches compute."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import few
from test_decoder import grids
from tiny_models import FAMILIES, embeddings, tiny
from transformers import DynamicCache

from mapflow.model_adapters.interventions import (
    AttentionPlan,
    Decoder,
    DecoderInputs,
    Segment,
    TokenLayout,
    apply,
    parse_intervention,
)
from mapflow.model_adapters.interventions.kept_keys import KeptKeys, readable_keys
from mapflow.model_adapters.interventions.pathways import PathwayRanges

LAYOUT = TokenLayout.from_runs(
    [
        (Segment("system"), 2),
        *((Segment("frame", i), 3) for i in range(3)),
        (Segment("stem"), 3),
        (Segment("option", 0), 1),
        (Segment("template"), 2),
        (Segment("last"), 1),
    ]
)
TEXTS = ("full", "video->last", "effective", "effective-strict", "random:ratio=0.4,seed=1", "all->last")
PATHWAYS = PathwayRanges.from_mapping(
    {"cross_frame": "1-2", "video_to_question": "2-3", "question_to_last": "3-4"}, "here"
)


def compiled(text: str, n_layers: int = 4):
    return parse_intervention(text).compile(LAYOUT, n_layers, PATHWAYS, key="q")


@given(grids(max_prompts=1, min_interventions=1))
@few
def test_readable_keys_are_the_last_row_of_the_mask(grid):
    n_layers, [(_, own, masks)] = grid
    for layer in range(n_layers):
        assert readable_keys(own, layer).tolist() == [mask[layer][-1] for mask in masks]


@pytest.mark.parametrize("text", TEXTS)
def test_a_cache_holds_the_readable_keys_of_every_layer_and_no_others(text):
    model, own = tiny("llama-gqa", 4), compiled(text)
    decoder, cache = Decoder(model), DynamicCache(config=model.config)
    whole = DynamicCache(config=model.config)
    embeds = embeddings(len(LAYOUT), seed=3)[None]
    plan = KeptKeys([own], cache, decoder.device)
    with apply(plan), plan.dropping(decoder.layers):
        decoder.core(inputs_embeds=embeds, past_key_values=cache, use_cache=True)
    with apply(AttentionPlan.of([own])):
        decoder.core(inputs_embeds=embeds, past_key_values=whole, use_cache=True)
    kept = 0
    for layer, (one, other) in enumerate(zip(cache.layers, whole.layers, strict=True)):
        columns = own.token_mask(layer)[-1].nonzero().squeeze(1)
        torch.testing.assert_close(one.keys, other.keys[:, :, columns], rtol=0, atol=0)
        torch.testing.assert_close(one.values, other.values[:, :, columns], rtol=0, atol=0)
        kept += one.keys.nbytes + one.values.nbytes
        assert plan.mask(layer, 1, len(columns) + 1) is None  # alone, whoever is there may be read
    assert plan.bytes_kept == kept
    assert plan.bytes_whole == sum(layer.keys.nbytes + layer.values.nbytes for layer in whole.layers)
    assert (plan.bytes_kept < plan.bytes_whole) == (text != "full")


@pytest.mark.parametrize("family", FAMILIES)
@given(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=4))
@few
def test_every_step_equals_the_whole_caches(family, texts):
    """Several interventions at once keep the union of their keys: logits of each step against each one's own whole cache."""
    model, own = tiny(family, 4), [compiled(text) for text in texts]
    decoder, inputs = Decoder(model), DecoderInputs(embeddings(len(LAYOUT), seed=3))
    tokens, first = decoder.generate(inputs, own, max_new_tokens=5)
    for row, (one, written) in enumerate(zip(own, tokens, strict=True)):
        cache = DynamicCache(config=model.config)
        with apply(AttentionPlan.of([one])), torch.inference_mode():
            hidden = decoder.core(inputs_embeds=inputs.embeds[None], past_key_values=cache, use_cache=True)
            torch.testing.assert_close(decoder.logits(hidden.last_hidden_state[:, -1])[0], first[row])
            expected = [int(first[row].argmax())]
            for step in range(4):
                hidden = decoder.core(
                    input_ids=torch.tensor([[expected[-1]]]),
                    position_ids=torch.tensor([[len(inputs) + step]]),
                    past_key_values=cache,
                    use_cache=True,
                )
                expected.append(int(decoder.logits(hidden.last_hidden_state[:, -1]).argmax()))
        assert written == expected

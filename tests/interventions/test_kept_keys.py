"""Caches without dead keys: what is kept is what the last row may read, and every step computes
what whole caches, and no cache at all, compute.
"""

from __future__ import annotations

from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import few
from test_attention import TOLERANCE
from test_decoder import grids
from test_incremental import DECODERS, decoder_of
from tiny_models import FAMILIES, HEADS, HIDDEN, SIZES, VOCAB, embeddings, tiny
from transformers import (
    DynamicCache,
    Gemma3nForCausalLM,
    Gemma3nTextConfig,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)

from mapflow.harness.cli.main import main
from mapflow.model_adapters.interventions import (
    BatchMasks,
    Compiled,
    Decoder,
    DecoderInputs,
    Segment,
    TokenLayout,
    apply,
    parse_intervention,
)
from mapflow.model_adapters.interventions.execution.kept_keys import (
    KeptKeys,
    allowed_keys,
    keys_kept,
)
from mapflow.model_adapters.interventions.kernels.attention import EAGER, SDPA
from mapflow.model_adapters.interventions.language.layout import example_layout
from mapflow.model_adapters.interventions.language.pathways import PathwayRanges

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
WINDOWS = ("knockout:video->last@center=2,window=2", "knockout:question->last@center=3,window=3")
TEXTS = (
    "full",
    "video->last",
    "effective",
    "effective-strict",
    "random:ratio=0.4,seed=1",
    "random:ratio=0.4,seed=2+video->last@2",
    "all->last",
    *WINDOWS,
)
PATHWAYS = PathwayRanges.from_mapping(
    {"cross_frame": "1-2", "video_to_question": "2-3", "question_to_last": "3-4"}, "here"
)
N_NEW = 5


def compiled(text: str, n_layers: int = 4) -> Compiled:
    return parse_intervention(text).compile(LAYOUT, n_layers, PATHWAYS, key="q")


def generated(decoder: Decoder, inputs: DecoderInputs, own: list[Compiled], n_new: int = N_NEW):
    """Tokens, and `[intervention, step, vocab]` logits of every step."""
    steps, real = [], decoder.logits

    def noted(hidden):
        steps.append(real(hidden))
        return steps[-1].clone()  # a later step may write into the first one's

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoder, "logits", noted)
        tokens, _ = decoder.generate(inputs, own, n_new)
    assert [len(row) for row in tokens] == [n_new] * len(own)
    assert [[int(one.argmax()) for one in row] for row in torch.stack(steps, 1)] == tokens
    return tokens, torch.stack(steps, 1)


@torch.inference_mode()
def recomputed(
    decoder: Decoder, inputs: DecoderInputs, one: Compiled, written: list[int]
) -> torch.Tensor:
    """`[step, vocab]` logits by the naive way: for every token the whole sequence again, no cache,
    the float32 reference.
    """
    table, rows = decoder.core.get_input_embeddings(), []
    decoder.core.set_attn_implementation(EAGER)
    try:
        for step in range(len(written)):
            longer = inputs.followed_by(table(torch.tensor(written[:step]))) if step else inputs
            with (
                apply(BatchMasks.of([one])),
                decoder.adding_vectors(longer.added),
                decoder.ending_after(one.depth),
            ):
                hidden = decoder.core(
                    inputs_embeds=longer.embeds[None],
                    attention_mask=torch.ones(1, len(longer), dtype=torch.long),
                    position_ids=longer.batched_position_ids,
                    use_cache=False,
                ).last_hidden_state
            rows.append(decoder.logits(hidden[:, -1])[0])
    finally:
        decoder.core.set_attn_implementation(SDPA)
    return torch.stack(rows)


def assert_recomputed(
    decoder: Decoder, inputs: DecoderInputs, own: list[Compiled], n_new: int = N_NEW
):
    tokens, steps = generated(decoder, inputs, own, n_new)
    for one, written, found in zip(own, tokens, steps, strict=True):
        torch.testing.assert_close(found, recomputed(decoder, inputs, one, written), **TOLERANCE)


def prefilled(decoder: Decoder, own: list[Compiled]) -> tuple[KeptKeys, DynamicCache, DynamicCache]:
    """A thinned cache and a whole one, after the same prefill."""
    embeds = embeddings(len(LAYOUT), seed=3).expand(len(own), -1, -1)
    kept, whole = DynamicCache(config=decoder.core.config), DynamicCache(config=decoder.core.config)
    plan = KeptKeys(own, kept, decoder.device)
    with torch.inference_mode():
        with apply(plan), plan.dropping(decoder.layers):
            decoder.core(inputs_embeds=embeds, past_key_values=kept, use_cache=True)
        with apply(BatchMasks.of(own)):
            decoder.core(inputs_embeds=embeds, past_key_values=whole, use_cache=True)
    return plan, kept, whole


@given(grids(max_prompts=1, min_interventions=1))
@few
def test_allowed_keys_are_the_last_row_of_the_mask(grid):
    n_layers, [(_, own, masks)] = grid
    for layer in range(n_layers):
        assert allowed_keys(own, layer).tolist() == [mask[layer][-1] for mask in masks]
    union = [
        any(mask[layer][-1][k] for mask in masks)
        for layer in range(n_layers)
        for k in range(len(masks[0][0]))
    ]
    assert keys_kept(own) == (sum(union), len(union))


@given(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=4))
@few
def test_a_cache_holds_the_allowed_keys_of_every_layer_and_no_others(texts):
    """Of several interventions the union; masks say which are whose, and none is needed where all
    belong to all rows.
    """
    own = [compiled(text) for text in texts]
    plan, kept, whole = prefilled(Decoder(tiny("llama-gqa", 4)), own)
    plan.generated = 1
    columns_held = 0
    for layer, (one, other) in enumerate(zip(kept.layers, whole.layers, strict=True)):
        rows = torch.stack([item.token_mask(layer)[-1] for item in own])
        columns = rows.any(0).nonzero().squeeze(1)
        columns_held += len(columns)
        torch.testing.assert_close(one.keys, other.keys[:, :, columns], rtol=0, atol=0)
        torch.testing.assert_close(one.values, other.values[:, :, columns], rtol=0, atol=0)
        assert one.keys.untyped_storage().nbytes() == one.keys.nbytes  # no view of the whole
        edges = plan.mask(layer, 1, len(columns) + 1)
        theirs = torch.cat([rows[:, columns], torch.ones(len(own), 1, dtype=torch.bool)], 1)
        assert theirs.all() if edges is None else torch.equal(edges.allowed[:, 0, 0], theirs)
        assert (edges is None) == bool(theirs.all())
    assert keys_kept(own) == (columns_held, 4 * len(LAYOUT))
    per_key = 2 * len(own) * HEADS // 2 * (HIDDEN // HEADS) * 4  # keys and values, float32
    assert (
        plan.bytes_kept
        == columns_held * per_key
        == sum(c.keys.nbytes + c.values.nbytes for c in kept.layers)
    )
    assert plan.bytes_whole == 4 * len(LAYOUT) * per_key
    assert ("full" in texts) <= (plan.bytes_kept == plan.bytes_whole)


@pytest.mark.parametrize("text", TEXTS)
def test_one_intervention_needs_no_mask_to_decode(text):
    plan, kept, _ = prefilled(Decoder(tiny("llama-mha", 4)), [compiled(text)])
    plan.generated = 1
    assert all(
        plan.mask(n, 1, layer.get_seq_length() + 1) is None for n, layer in enumerate(kept.layers)
    )


def test_layers_that_keep_alike_share_one_mask_a_step():
    """Masks are made where rows differ, once for all layers: what a step costs is mostly
    launches.
    """
    plan, kept, _ = prefilled(
        Decoder(tiny("llama-gqa", 4)), [compiled("full"), compiled("video->last")]
    )
    plan.generated = 1
    masks = [plan.mask(n, 1, layer.get_seq_length() + 1) for n, layer in enumerate(kept.layers)]
    assert masks[0] is not None and all(mask is masks[0] for mask in masks)
    plan.generated = 2
    later = plan.mask(0, 1, kept.layers[0].get_seq_length() + 2)
    assert later is not None and later.allowed.shape[-1] == masks[0].allowed.shape[-1] + 1


def test_random_edges_are_drawn_once(monkeypatch):
    """Drawing sorts every edge of a layer; what the last row keeps is read off the prefill's own
    mask.
    """
    drawn, one = [], compiled("random:ratio=0.4,seed=1")
    real = Compiled.blocked
    monkeypatch.setattr(
        Compiled, "blocked", lambda self, *args: drawn.append(args[0]) or real(self, *args)
    )
    decoder = Decoder(tiny("llama-gqa", 4))
    decoder.generate(DecoderInputs(embeddings(len(LAYOUT), seed=3)), [one], 3)
    assert drawn == [0, 1, 2, 3]


@pytest.mark.parametrize("family", FAMILIES)
@given(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=4))
@few
@torch.inference_mode()
def test_every_step_equals_the_whole_caches(family, texts):
    """Several interventions at once against each one's own whole cache under the plain plan."""
    decoder, own = Decoder(tiny(family, 4)), [compiled(text) for text in texts]
    inputs = DecoderInputs(embeddings(len(LAYOUT), seed=3))
    tokens, steps = generated(decoder, inputs, own)
    for one, written, found in zip(own, tokens, steps, strict=True):
        whole = DynamicCache(config=decoder.core.config)
        with apply(BatchMasks.of([one])):
            rows = [
                decoder.core(
                    inputs_embeds=inputs.embeds[None], past_key_values=whole, use_cache=True
                )
            ]
            for step, token in enumerate(written[:-1]):
                position = torch.tensor([[len(inputs) + step]])
                one_more = torch.tensor([[token]])
                rows.append(
                    decoder.core(
                        input_ids=one_more,
                        position_ids=position,
                        past_key_values=whole,
                        use_cache=True,
                    )
                )
        expected = torch.stack([decoder.logits(row.last_hidden_state[:, -1])[0] for row in rows])
        torch.testing.assert_close(found, expected, **TOLERANCE)


@pytest.mark.parametrize("name", DECODERS)
@given(grids(max_prompts=1, min_interventions=1), st.integers(1, 4))
@few
def test_every_step_equals_recomputation_without_a_cache(name, grid, n_new):
    """Any interventions, any company; sliding windows too, above full layers or everywhere,
    shorter than the prompt.
    """
    n_layers, [(embeds, own, _)] = grid
    assert_recomputed(decoder_of(name, n_layers, torch.float32), DecoderInputs(embeds), own, n_new)


@pytest.mark.parametrize("name", DECODERS)
def test_every_step_of_the_named_policies_equals_recomputation(name):
    decoder, inputs = (
        decoder_of(name, 4, torch.float32),
        DecoderInputs(embeddings(len(LAYOUT), seed=3)),
    )
    assert_recomputed(decoder, inputs, [compiled(text) for text in TEXTS])
    for text in TEXTS:
        assert_recomputed(decoder, inputs, [compiled(text)])


@pytest.mark.parametrize("family", FAMILIES)
def test_positions_added_vectors_and_early_exits(family):
    """What else a prompt brings: positions that jump, vectors after layers (DeepStack); and layers
    that do not run.
    """
    n = len(LAYOUT)
    added = {0: embeddings(n, seed=8), 1: embeddings(n, seed=9)}
    inputs = DecoderInputs(embeddings(n, seed=1), torch.arange(n)[None] * 2, added)
    own = [compiled(f"early-exit@3+{text}") for text in ("video->last", "effective", WINDOWS[0])]
    assert_recomputed(Decoder(tiny(family, 4)), inputs, own)
    assert_recomputed(Decoder(tiny(family, 4)), inputs, own[:1])


@cache
def mrope() -> Decoder:
    """Rotary positions of three axes, which count neither up nor alike."""
    torch.manual_seed(0)
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}
    text = {**SIZES, "num_hidden_layers": 4, "num_key_value_heads": 2, "rope_parameters": rope}
    vision = {"depth": 1, "embed_dim": 16, "hidden_size": HIDDEN, "num_heads": 2, "patch_size": 4}
    config = Qwen2VLConfig(text_config=text, vision_config=vision)
    return loud(Qwen2VLForConditionalGeneration(config))


@cache
def shared_keys() -> Decoder:
    """The upper half of the layers reads the keys of the lower half."""
    torch.manual_seed(0)
    config = Gemma3nTextConfig(
        **{**SIZES, "tie_word_embeddings": True},
        num_hidden_layers=4,
        num_key_value_heads=2,
        head_dim=HIDDEN // HEADS,
        vocab_size_per_layer_input=VOCAB,
        hidden_size_per_layer_input=8,
        laurel_rank=4,
        altup_num_inputs=2,
        num_kv_shared_layers=2,
        layer_types=["full_attention"] * 4,
        activation_sparsity_pattern=[0.0] * 4,
    )
    return loud(Gemma3nForCausalLM(config))


def loud(model) -> Decoder:
    """Weights large enough for attention to matter."""
    for parameter in model.eval().requires_grad_(False).parameters():
        if parameter.ndim > 1:
            parameter.mul_(8)
    return Decoder(model)


def test_positions_of_several_axes():
    n = len(LAYOUT)
    positions = torch.stack([torch.arange(n), torch.arange(n) % 5, torch.arange(n) // 3])
    inputs = DecoderInputs(embeddings(n, seed=1), positions)
    assert_recomputed(mrope(), inputs, [compiled(text) for text in TEXTS])
    assert_recomputed(mrope(), inputs, [compiled("effective")])


def test_keys_that_other_layers_read_too_stay():
    """There a layer's last row is not the only one to ask: nothing is dropped, and the layers
    above see whole keys.
    """
    decoder, inputs = shared_keys(), DecoderInputs(embeddings(len(LAYOUT), seed=1))
    for texts in (TEXTS, ("effective",), ("video->last@1-2",)):
        assert_recomputed(decoder, inputs, [compiled(text) for text in texts])
    plan, _, _ = prefilled(decoder, [compiled("effective")])
    assert plan.bytes_kept == plan.bytes_whole > 0


def test_explain_counts_the_keys_that_decoding_keeps(capsys):
    """Where it keeps all there is no line, and none for random blocking, whose edges are not drawn
    for that.
    """
    frames = ["--frames", "2", "--tokens-per-frame", "5"]
    assert main(["explain", "video->last@1-3,full,random:ratio=0.2", "--layers", "4", *frames]) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("keys kept")]
    layout = example_layout(2, 5)
    one = parse_intervention("video->last@1-3").compile(layout, 4)
    kept, whole = sum(int(one.token_mask(layer)[-1].sum()) for layer in range(4)), 4 * len(layout)
    assert whole - kept == 3 * 10
    assert len(told) == 1 and f"{kept:,} of {whole:,} ({kept / whole:.1%})" in told[0]

"""Models that hand their decoder a mask, token types or per-layer embeddings: cuts act on the edges
that the model has, in both directions.

The reference implementation is transformers' eager attention, for every layer under one boolean
matrix: the model's own mask, written down here from the token ids alone, without the pairs of
positions that the intervention names. It shares no code with the instrument.
"""

from __future__ import annotations

import sys

import pytest
import torch
from test_hf import RANGES, ask, clip, last_hidden
from tiny_hf import write_tiny_hf
from tiny_hf_masks import OWN

from mapflow.model_adapters.families.hf.model import HfVideo
from mapflow.model_adapters.inference.answering import answer
from mapflow.model_adapters.interventions import parse_intervention, parse_interventions
from mapflow.model_adapters.interventions.execution.layer_arguments import NotIncremental
from mapflow.model_adapters.interventions.kernels.attention import EAGER, SDPA

LAYERS = 6
FULL_WINDOW = 24
CUTS = {
    "cross-frame": lambda q, k, layer: _frames(q, k) and q != k,
    "cross-frame@2-4": lambda q, k, layer: 2 <= layer <= 4 and _frames(q, k) and q != k,
    "video->question": lambda q, k, layer: q[0] in QUESTION and k[0] == "frame",
    "video->video@3-5": lambda q, k, layer: 3 <= layer <= 5 and _frames(q, k),
    "frame[1]->frame[0]": lambda q, k, layer: q == ("frame", 0) and k == ("frame", 1),
    "frame[0]->frame[0]@1-3": lambda q, k, layer: layer <= 3 and q == k == ("frame", 0),
}
QUESTION = ("label", "stem", "option")


def _frames(q, k) -> bool:
    return q[0] == k[0] == "frame"


@pytest.fixture(scope="module", params=OWN)
def model(request, tmp_path_factory) -> HfVideo:
    folder = tmp_path_factory.mktemp("own") / request.param
    loaded = HfVideo.load(write_tiny_hf(folder, request.param, LAYERS))
    loaded.pathways = RANGES
    loaded.kind = request.param
    return loaded


@pytest.fixture(scope="module")
def asked(model):
    frames = clip(4 if model.frames_per_segment == 2 else 2)
    prepared = model.encode(ask(), frames[:, :8, :8])
    assert prepared.layout.n_frames == 2
    return prepared, *model.embed([prepared])


@pytest.fixture(autouse=True)
def implementation(model):
    yield
    model.decoder.core.set_attn_implementation(SDPA)


def own_masks(model, prepared) -> list[torch.Tensor]:
    """The model's mask of every layer, from the ids: which tokens are pictures, and which of them
    are neighbours."""
    ids, n = prepared.input_ids.tolist(), len(prepared.input_ids)
    causal = [[k <= q for k in range(n)] for q in range(n)]
    token = model.tokenizer.convert_tokens_to_ids
    if model.kind == "molmo2":
        pictures = {token(name) for name in ("<im_patch>", "<frame_start>", "<frame_end>")}
        picture = [one in pictures for one in ids]
        both = [[causal[q][k] or (picture[q] and picture[k]) for k in range(n)] for q in range(n)]
        return [torch.tensor(both)] * LAYERS
    if not model.kind.startswith("gemma4"):
        return [torch.tensor(causal)] * LAYERS
    block, blocks = [], 0
    for place, one in enumerate(ids):
        shown = one == token("<|video|>")
        blocks += shown and (place == 0 or ids[place - 1] != one)
        block.append(blocks if shown else 0)
    sliding = [
        [q - k < FULL_WINDOW and (causal[q][k] or (block[q] == block[k] > 0)) for k in range(n)]
        for q in range(n)
    ]
    return [torch.tensor(causal if layer % 2 else sliding) for layer in range(LAYERS)]


def named_masks(prepared, own, cut) -> list[torch.Tensor]:
    segments = [prepared.layout.segments[i] for i in prepared.layout.segment_of.tolist()]
    names = [(segment.kind, segment.index) for segment in segments]
    return [
        mask & ~torch.tensor([[cut(q, k, layer) for k in names] for q in names])
        for layer, mask in enumerate(own, 1)
    ]


def reference_logits(model, prepared, masks, monkeypatch) -> torch.Tensor:
    """The whole model's own forward, pixels included, with each layer's attention written out."""
    core = model.decoder.core
    core.set_attn_implementation("eager")
    attentions = [m for m in core.modules() if hasattr(m, "layer_idx") and hasattr(m, "q_proj")]
    module = sys.modules[type(attentions[0]).__module__]

    def eager(attention, query, key, value, attention_mask, scaling=None, **options):
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        scores = query @ key.mT * (query.shape[-1] ** -0.5 if scaling is None else scaling)
        if attention in attentions:
            scores = scores.masked_fill(~masks[attention.layer_idx], -torch.inf)
        elif attention_mask is not None and attention_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attention_mask, -torch.inf)
        elif attention_mask is not None:
            scores = scores + attention_mask
        weights = torch.nan_to_num(scores.softmax(-1))
        return (weights @ value).transpose(1, 2), weights

    with monkeypatch.context() as patch:
        patch.setattr(module, "eager_attention_forward", eager)
        with torch.inference_mode():
            logits = model.plain_logits(prepared)
    core.set_attn_implementation(SDPA)
    return logits


def test_own_edges_are_the_models(model, asked):
    prepared, inputs = asked
    expected = own_masks(model, prepared)
    found, n = model.decoder.own_edges(inputs), len(prepared.layout)
    if found is None:
        assert model.kind == "ernie4_5_vl", "the one model with a causal mask"
        return
    for layer, mask in enumerate(expected):
        assert torch.equal(found.mask(layer, n), mask), layer
    assert not found.causal


def test_full_is_the_models_own_forward(model, asked, monkeypatch):
    prepared, inputs = asked
    full = model.compile(parse_intervention("full"), prepared, inputs)
    plain = last_hidden(model, lambda: model.plain_logits(prepared))
    ours = last_hidden(model, lambda: model.decoder.answer_logits([inputs], [[full]]))
    assert torch.equal(ours, plain)
    slow = reference_logits(model, prepared, own_masks(model, prepared), monkeypatch)
    (fast,) = model.decoder.answer_logits([inputs], [[full]])
    torch.testing.assert_close(fast[0], slow, rtol=0, atol=1e-4)


@pytest.mark.parametrize("text", CUTS)
def test_cuts_equal_eager_attention_without_the_named_pairs(model, asked, text, monkeypatch):
    prepared, inputs = asked
    own = own_masks(model, prepared)
    masks = named_masks(prepared, own, CUTS[text])
    slow = reference_logits(model, prepared, masks, monkeypatch)
    both = model.compile_all(parse_interventions(["full", text]), prepared, inputs)
    (fast,) = model.decoder.answer_logits([inputs], [both])
    torch.testing.assert_close(fast[1], slow, rtol=0, atol=1e-4)
    model.decoder.core.set_attn_implementation(EAGER)
    (written_out,) = model.decoder.answer_logits([inputs], [both])
    torch.testing.assert_close(written_out[1], slow, rtol=0, atol=1e-4)
    model.decoder.core.set_attn_implementation(SDPA)
    assert both[1].edges_by_layer.tolist() == [int(mask.sum()) for mask in masks]
    assert both[1].edges_total == sum(int(mask.sum()) for mask in own)
    removed = sum(int((a & ~b).sum()) for a, b in zip(own, masks, strict=True))
    moved = float((fast[0] - fast[1]).abs().max())
    assert (moved > 1e-4) == (removed > 0), "a cut acts where the model has its edges"


def test_records_generation_and_other_executors(model, asked):
    prepared, inputs = asked
    interventions = parse_interventions(["full;effective;random:seed=1;cross-frame"])
    (records,) = answer(model, [prepared], interventions)
    full = sum(int(mask.sum()) for mask in own_masks(model, prepared))
    assert {record.edges_total for record in records} == {full} and not records[0].error
    assert records[1].edges_kept == records[2].edges_kept < records[0].edges_kept == full
    for one, record in zip(interventions, records, strict=True):
        (alone,) = answer(model, [prepared], [one])
        assert alone[0].option_probs == pytest.approx(record.option_probs, abs=1e-5)
    from mapflow.model_adapters.interventions.execution import incremental

    with pytest.raises(NotIncremental, match="one by one"):
        compiled = model.compile_all(interventions, prepared, inputs)
        incremental.answer_logits(model.decoder, inputs, compiled)


def test_cached_decoding_equals_generate(model, asked):
    prepared, inputs = asked
    full = model.compile(parse_intervention("full"), prepared, inputs)
    tokens, _ = model.decoder.generate(inputs, [full], 4)
    model.model.generation_config.eos_token_id = None
    expected = model.model.generate(
        **model._inputs(prepared),
        max_new_tokens=4,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    assert tokens[0] == expected[0, len(prepared.input_ids) :].tolist()

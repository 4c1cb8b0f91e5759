"""The attention function inside unmodified models: sdpa path = float32 reference = the naive
forward of each sample.
"""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from naive import allowed, grown
from strategies import cases, compile_spec, few, layout_of, prompts, quick, specs
from tiny_models import FAMILIES, embeddings, tiny, twin_logits
from torch import nn
from transformers import DynamicCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from mapflow.model_adapters.interventions import (
    BatchMasks,
    Segment,
    TokenLayout,
    apply,
    parse_intervention,
)
from mapflow.model_adapters.interventions.kernels.attention import (
    reference_attention,
    sdpa_attention,
)
from mapflow.model_adapters.interventions.kernels.reference import eager_attention

families = st.sampled_from(sorted(FAMILIES))
LAYOUT = TokenLayout.from_runs(
    [(Segment("system"), 2), (Segment("frame", 0), 3), (Segment("stem"), 2), (Segment("last"), 1)]
)
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}


def naive_masks(prompt, spec, n_layers, compiled):
    """Segment cuts from the definition; the random edges as drawn (test_random_blocking checks the
    draw).
    """
    masks = [allowed(prompt, spec, layer, n_layers) for layer in range(1, n_layers + 1)]
    for layer, mask in enumerate(masks):
        blocked = compiled.blocked(layer)
        for q, k in blocked.nonzero().tolist() if blocked is not None else ():
            mask[q][k] = False
    return masks


@st.composite
def batches(draw, n_samples: int = 3, max_layers: int = 3):
    """Samples of different layouts under different interventions, of one depth."""
    n_layers = draw(st.integers(1, max_layers))
    samples = []
    for i in range(draw(st.integers(1, n_samples))):
        prompt = draw(prompts(max_frames=2))
        spec = draw(specs(prompt, n_layers, random=True))
        compiled = compile_spec(prompt, spec, n_layers, key=f"q{i}")
        samples.append(
            (
                embeddings(len(prompt), seed=i),
                compiled,
                naive_masks(prompt, spec, n_layers, compiled),
            )
        )
    return n_layers, samples


@given(families, cases(random=True, max_layers=3, max_frames=2))
@few
@torch.no_grad()
def test_one_prompt_equals_reference_and_naive_forward(family, case):
    prompt, spec, n_layers = case
    compiled = compile_spec(prompt, spec, n_layers, "q")
    embeds = embeddings(len(prompt), seed=3)
    with apply(BatchMasks.of([compiled])):
        fast = tiny(family, n_layers, "mapflow")(inputs_embeds=embeds[None]).logits[0]
        slow = tiny(family, n_layers, "mapflow_eager")(inputs_embeds=embeds[None]).logits[0]
    assert torch.isfinite(fast).all()
    torch.testing.assert_close(fast, slow, **TOLERANCE)
    twin = twin_logits(
        tiny(family, n_layers), embeds, naive_masks(prompt, spec, n_layers, compiled)
    )
    torch.testing.assert_close(fast.double(), twin, **TOLERANCE)


@given(
    families,
    batches(),
    st.sampled_from(["left", "right"]),
    st.sampled_from(["mapflow", "mapflow_eager"]),
)
@few
@torch.no_grad()
def test_padded_batches_equal_each_sample_alone(family, batch, side, attention):
    n_layers, samples = batch
    length = max(len(embeds) for embeds, _, _ in samples) + 1
    starts = [length - len(embeds) if side == "left" else 0 for embeds, _, _ in samples]
    padded = embeddings(length, seed=99).repeat(
        len(samples), 1, 1
    )  # padding is not zeros: no position may attend to it
    present = torch.zeros(len(samples), length, dtype=torch.long)
    positions = torch.zeros(len(samples), length, dtype=torch.long)
    for row, (start, (embeds, _, _)) in enumerate(zip(starts, samples, strict=True)):
        padded[row, start : start + len(embeds)] = embeds
        present[row, start : start + len(embeds)] = 1
        positions[row, start : start + len(embeds)] = torch.arange(len(embeds))
    plan = BatchMasks.of([compiled for _, compiled, _ in samples], starts=starts, length=length)
    model = tiny(family, n_layers, attention)
    with apply(plan):
        logits = model(inputs_embeds=padded, attention_mask=present, position_ids=positions).logits
    assert torch.isfinite(logits).all()
    for row, (start, (embeds, _, masks)) in enumerate(zip(starts, samples, strict=True)):
        own = logits[row, start : start + len(embeds)].double()
        torch.testing.assert_close(own, twin_logits(model, embeds, masks), **TOLERANCE)


@given(families, batches(n_samples=2), st.integers(1, 3), st.booleans())
@few
@torch.no_grad()
def test_cached_decoding_equals_full_recomputation(family, batch, n_new, padded):
    """Generated rows keep the last prompt row's cuts; generated keys are free (left padding where
    prompts differ).
    """
    n_layers, samples = batch
    length = max(len(embeds) for embeds, _, _ in samples) + padded
    starts = [length - len(embeds) for embeds, _, _ in samples]
    inputs = torch.zeros(len(samples), length, samples[0][0].shape[1])
    present = torch.zeros(len(samples), length, dtype=torch.long)
    for row, (start, (embeds, _, _)) in enumerate(zip(starts, samples, strict=True)):
        inputs[row, start:], present[row, start:] = embeds, 1
    positions = (present.cumsum(1) - 1).clamp(min=0)
    new = [embeddings(n_new, seed=50 + row) for row in range(len(samples))]
    model = tiny(family, n_layers)
    cache = DynamicCache(config=model.config)
    steps = []
    with apply(BatchMasks.of([compiled for _, compiled, _ in samples], starts=starts)):
        model(
            inputs_embeds=inputs,
            attention_mask=present,
            position_ids=positions,
            past_key_values=cache,
        )
        for step in range(n_new):
            present = torch.cat([present, present.new_ones(len(samples), 1)], 1)
            out = model(
                inputs_embeds=torch.stack([own[step : step + 1] for own in new]),
                attention_mask=present,
                position_ids=positions[:, -1:] + 1 + step,
                past_key_values=cache,
            )
            steps.append(out.logits[:, 0])
    for row, (embeds, _, masks) in enumerate(samples):
        twin = twin_logits(
            model, torch.cat([embeds, new[row]]), [grown(mask, n_new) for mask in masks]
        )
        torch.testing.assert_close(
            torch.stack(steps, 1)[row].double(), twin[len(embeds) :], **TOLERANCE
        )


@given(cases(random=True, max_layers=3, max_frames=2), st.data())
@few
@torch.no_grad()
def test_a_suffix_of_queries_over_a_cached_prefix_equals_the_whole(case, data):
    prompt, spec, n_layers = case
    cut = data.draw(st.integers(1, len(prompt) - 1))
    compiled = compile_spec(prompt, spec, n_layers, "q")
    embeds, model = embeddings(len(prompt), seed=3), tiny("llama-gqa", n_layers)
    cache = DynamicCache(config=model.config)
    with apply(BatchMasks.of([compiled])):
        whole = model(inputs_embeds=embeds[None]).logits[0]
        first = model(inputs_embeds=embeds[None, :cut], past_key_values=cache).logits[0]
        rest = model(inputs_embeds=embeds[None, cut:], past_key_values=cache).logits[0]
    torch.testing.assert_close(torch.cat([first, rest]), whole, **TOLERANCE)


class Layer(nn.Module):
    layer_idx = 0
    is_causal = True

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.num_key_value_groups = groups
        self.eval()


@given(cases(random=True, max_layers=1), st.sampled_from([1, 2, 4]), st.booleans(), st.data())
@quick
def test_the_function_alone_with_any_suffix_of_queries(case, groups, padding, data):
    """Without a model around it there is no causal mask from outside: it must come from the plan
    itself.
    """
    prompt, spec, _ = case
    n = len(prompt)
    n_queries = data.draw(st.integers(1, n))
    compiled = compile_spec(prompt, spec, 1, "q")
    generator = torch.Generator().manual_seed(n)
    query = torch.randn(2, 4, n_queries, 8, generator=generator)
    key, value = torch.randn(2, 2, 4 // groups, n, 8, generator=generator)
    outside = None
    if padding:  # the model's own mask: causal, the first key of the second sample is padding
        outside = torch.ones(n_queries, n, dtype=torch.bool).tril(n - n_queries).repeat(2, 1, 1, 1)
        outside[1, :, :, 0] = False
    with apply(BatchMasks.of([compiled, compiled])):
        fast, _ = sdpa_attention(Layer(groups), query, key, value, outside)
        slow, weights = reference_attention(Layer(groups), query, key, value, outside)
    allowed_here = torch.tensor(naive_masks(prompt, spec, 1, compiled)[0])[n - n_queries :].repeat(
        2, 1, 1, 1
    )
    allowed_here = allowed_here if outside is None else allowed_here & outside
    assert torch.isfinite(fast).all()
    torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-6)
    assert (weights == 0).logical_or(allowed_here).all(), "no weight on a cut edge"
    empty = ~allowed_here.any(-1).transpose(1, 2).expand(-1, -1, 4)
    assert (fast[empty] == 0).all() and (slow[empty] == 0).all(), "rows without a key read nothing"
    torch.testing.assert_close(weights.sum(-1).transpose(1, 2), (~empty).float())


@pytest.mark.parametrize("n_queries", [1, 3, 8])
@pytest.mark.parametrize("expression", ["full", "video->last@2"])
def test_a_suffix_of_queries_is_causal_also_where_nothing_is_cut(n_queries, expression):
    """sdpa's own causal mask would let the first of the queries see the first key only."""
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(1, 2, n_queries, 4, generator=generator)
    key, value = torch.randn(2, 1, 2, 8, 4, generator=generator)
    with apply(BatchMasks.of([parse_intervention(expression).compile(LAYOUT, 2)])):
        found, _ = sdpa_attention(Layer(1), query, key, value, None)
    torch.testing.assert_close(found, eager_attention(query, key, value)[0])


def test_the_reference_is_the_textbook_formula():
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(1, 4, 3, 8, generator=generator)
    key, value = torch.randn(2, 1, 2, 5, 8, generator=generator)
    output, weights = eager_attention(query, key, value, scaling=0.3)
    for head in range(4):
        for q in range(3):
            keys = range(q + 3)
            scores = torch.tensor(
                [float(query[0, head, q] @ key[0, head // 2, k]) * 0.3 for k in keys]
            )
            expected = sum(
                w * value[0, head // 2, k] for w, k in zip(scores.softmax(0), keys, strict=True)
            )
            torch.testing.assert_close(output[0, q, head], expected)
            assert weights[0, head, q, q + 3 :].tolist() == [0] * (2 - q)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_without_a_plan_it_is_sdpa_bit_by_bit(family, padded):
    embeds = embeddings(24, seed=0).view(2, 12, -1)
    present = torch.ones(2, 12, dtype=torch.long)
    if padded:
        present[1, :5] = 0
    ours, theirs = (
        tiny(family, 3, name)(inputs_embeds=embeds, attention_mask=present)
        for name in ("mapflow", "sdpa")
    )
    assert torch.equal(ours.logits, theirs.logits)
    plan = BatchMasks.of([parse_intervention("full").compile(LAYOUT, 3)] * 2, starts=[4, 4])
    with apply(plan):
        assert torch.equal(
            tiny(family, 3)(inputs_embeds=embeds, attention_mask=present).logits, theirs.logits
        )


@torch.no_grad()
def test_apply_is_undone_also_by_an_exception_and_nests():
    model, embeds = tiny("llama-mha", 2), embeddings(8, seed=0)[None]
    plain = model(inputs_embeds=embeds).logits
    cut, other = (
        BatchMasks.of([parse_intervention(e).compile(LAYOUT, 2)])
        for e in ("video->last", "all->stem")
    )
    with pytest.raises(RuntimeError, match="stop"), apply(cut):
        under_cut = model(inputs_embeds=embeds).logits
        with apply(other):
            assert not torch.equal(model(inputs_embeds=embeds).logits, under_cut)
        assert torch.equal(model(inputs_embeds=embeds).logits, under_cut)
        with apply(None):
            assert torch.equal(model(inputs_embeds=embeds).logits, plain)
        raise RuntimeError("stop")
    assert not torch.equal(under_cut, plain)
    assert torch.equal(model(inputs_embeds=embeds).logits, plain)


@torch.no_grad()
def test_a_plan_holds_in_its_own_thread_only():
    from threading import Thread

    model, embeds = tiny("llama-mha", 2), embeddings(8, seed=0)[None]
    plain, seen = model(inputs_embeds=embeds).logits, []
    with apply(BatchMasks.of([parse_intervention("video->last").compile(LAYOUT, 2)])):
        thread = Thread(target=lambda: seen.append(model(inputs_embeds=embeds).logits.detach()))
        thread.start()
        thread.join()
    assert torch.equal(seen[0], plain)


def test_a_layer_without_a_number_is_refused_under_a_plan():
    query = torch.zeros(1, 1, 8, 4)
    plan = BatchMasks.of([parse_intervention("video->last").compile(LAYOUT, 2)])
    with apply(plan), pytest.raises(TypeError, match="Identity has no layer_idx"):
        sdpa_attention(nn.Identity(), query, query, query, None)


@given(prompts(), st.data())
@quick
def test_masks_are_shared_between_equal_layers(prompt, data):
    """The plan builds one mask for all layers that are treated alike."""
    name = data.draw(st.sampled_from(["system->last@2-5", "video->last@3-4", "last->last"]))
    if name.startswith("system") and not prompt.all_called("system"):
        return
    compiled = parse_intervention(name).compile(layout_of(prompt), 6)
    plan = BatchMasks.of([compiled])
    masks = [plan.mask(layer, len(prompt), len(prompt)) for layer in range(6)]
    assert len({id(mask) for mask in masks if mask is not None}) == 1
    for layer, mask in enumerate(masks):
        found = (
            torch.ones(len(prompt), len(prompt), dtype=torch.bool).tril()
            if mask is None
            else mask.allowed[0, 0]
        )
        assert torch.equal(found, compiled.token_mask(layer))


def test_nothing_of_the_registries_changes_but_our_names():
    """In a fresh interpreter: importing the instrument adds three attention and three mask
    functions, no more.
    """
    code = """
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS as masks
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS as functions
before = [dict(r) for r in (functions, masks)]
import mapflow.model_adapters.interventions.execution.attention_weights
for registry, old in zip((functions, masks), before):
    new = dict(registry)
    assert all(new[name] is old[name] for name in old), "an entry changed"
    assert set(new) - set(old) == {"mapflow", "mapflow_eager", "mapflow_rows"}, set(new) - set(old)
print("same")
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout.strip() == "same", run.stderr
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is sdpa_attention_forward

"""The branching decoder: several prompts and interventions in one pass equal one naive forward
each.
"""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from naive import grown
from strategies import compile_spec, few, layout_of, prompts, specs
from test_attention import TOLERANCE, families, naive_masks
from tiny_models import FAMILIES, embeddings, tiny, twin_logits

from mapflow.model_adapters.interventions import (
    BatchMasks,
    Decoder,
    DecoderInputs,
    Segment,
    TokenLayout,
    apply,
    parse_intervention,
)

LAYOUT = TokenLayout.from_runs(
    [(Segment("system"), 2), (Segment("frame", 0), 3), (Segment("stem"), 2), (Segment("last"), 1)]
)


@st.composite
def grids(draw, max_prompts: int = 3, min_interventions: int = 0):
    """Prompts, each with its own list of interventions (maybe none, maybe the same one twice)."""
    n_layers, grid = draw(st.integers(1, 4)), []
    for i in range(draw(st.integers(1, max_prompts))):
        prompt = draw(prompts(max_frames=2))
        chosen = draw(
            st.lists(specs(prompt, n_layers, random=True), min_size=min_interventions, max_size=4)
        )
        compiled = [compile_spec(prompt, spec, n_layers, key=f"q{i}") for spec in chosen]
        masks = [naive_masks(prompt, s, n_layers, c) for s, c in zip(chosen, compiled, strict=True)]
        grid.append((embeddings(len(prompt), seed=i), compiled, masks))
    return n_layers, grid


@given(families, grids())
@few
def test_one_branching_pass_equals_one_forward_each(family, grid):
    n_layers, rows = grid
    if not any(compiled for _, compiled, _ in rows):
        return
    model = tiny(family, n_layers)
    found = Decoder(model).answer_logits(
        [DecoderInputs(embeds) for embeds, _, _ in rows], [compiled for _, compiled, _ in rows]
    )
    assert len(found) == len(rows)
    for logits, (embeds, compiled, masks) in zip(found, rows, strict=True):
        assert logits.shape[0] == len(compiled) and logits.dtype == torch.float32
        for own, mask in zip(logits, masks, strict=True):
            torch.testing.assert_close(
                own.double(), twin_logits(model, embeds, mask)[-1], **TOLERANCE
            )
    assert not hooks_of(model)


@given(families, grids(max_prompts=1, min_interventions=1), st.integers(1, 4))
@few
def test_generate_equals_greedy_recomputation(family, grid, n_new):
    n_layers, [(embeds, compiled, masks)] = grid
    model = tiny(family, n_layers)
    tokens, first = Decoder(model).generate(DecoderInputs(embeds), compiled, max_new_tokens=n_new)
    for own, logits, mask in zip(tokens, first, masks, strict=True):
        rows, expected = embeds, []
        for step in range(n_new):
            twin = twin_logits(model, rows, [grown(layer, step) for layer in mask])[-1]
            if step == 0:
                torch.testing.assert_close(logits.double(), twin, **TOLERANCE)
            expected.append(int(twin.argmax()))
            rows = torch.cat([rows, model.get_input_embeddings()(twin.argmax()[None])])
        assert own == expected
    assert not hooks_of(model)


@pytest.mark.parametrize("family", FAMILIES)
def test_generation_stops_per_row_and_leaves_the_stop_out(family):
    """A row that has stopped stays as it is while the others go on."""
    decoder = Decoder(tiny(family, 3))
    compiled = [
        parse_intervention(e).compile(LAYOUT, 3) for e in ("full", "video->last", "all->last")
    ]
    inputs = DecoderInputs(embeddings(len(LAYOUT), seed=4))
    free, _ = decoder.generate(inputs, compiled, max_new_tokens=6)
    assert all(len(row) == 6 for row in free)
    stop = Counter(token for row in free for token in row[2:3]).most_common(1)[0][0]
    stopped, _ = decoder.generate(inputs, compiled, max_new_tokens=6, stop_ids=[stop])
    for row, whole in zip(stopped, free, strict=True):
        assert row == (whole[: whole.index(stop)] if stop in whole else whole)
    assert any(len(row) < 6 for row in stopped)


def test_generated_positions_follow_next_position():
    """Where positions do not simply count up, the given ones are used, for the prompt and for what
    follows.
    """
    decoder, n = Decoder(tiny("llama-gqa", 2)), len(LAYOUT)
    compiled = [parse_intervention("video->last").compile(LAYOUT, 2)]
    embeds = embeddings(n, seed=4)
    counted, first = decoder.generate(DecoderInputs(embeds), compiled, max_new_tokens=4)
    shifted = DecoderInputs(
        embeds, torch.arange(n)[None] + 7
    )  # rotary attention knows differences only
    again, first_again = decoder.generate(shifted, compiled, max_new_tokens=4)
    torch.testing.assert_close(first, first_again, **TOLERANCE)
    assert again == counted
    stretched = DecoderInputs(embeds, torch.arange(n)[None] * 5)
    _, other = decoder.generate(stretched, compiled, max_new_tokens=1)
    assert (other - first).abs().max() > 1e-3
    torch.testing.assert_close(
        decoder.answer_logits([stretched], [compiled])[0], other, **TOLERANCE
    )


def test_layers_before_the_first_difference_run_once():
    """The point of branching: rows run in each layer are those that differ so far."""
    model = tiny("llama-mha", 4)
    decoder = Decoder(model)
    rows: list[int] = []
    counters = [
        layer.register_forward_pre_hook(
            lambda m, a, k: rows.append(len(a[0] if a else k["hidden_states"])), with_kwargs=True
        )
        for layer in model.model.layers
    ]
    texts = ("full", "video->last@3", "video->last@3-4", "system->last@2", "full+full")
    compiled = [parse_intervention(text).compile(LAYOUT, 4) for text in texts]
    inputs = [DecoderInputs(embeddings(len(LAYOUT), seed)) for seed in (1, 2)]
    try:
        decoder.answer_logits(inputs, [compiled, compiled[:1]])
    finally:
        for counter in counters:
            counter.remove()
    # our counters run before the decoder's own hooks, so each sees what the layer before has left
    assert rows == [2, 2, 3, 4]


def hooks_of(model) -> list:
    return [
        hook
        for m in model.modules()
        for hook in (*m._forward_pre_hooks.values(), *m._forward_hooks.values())
    ]


def test_hooks_and_plan_are_gone_after_an_exception():
    model = tiny("qwen2-gqa", 3)
    decoder = Decoder(model)
    inputs = [
        DecoderInputs(embeddings(len(LAYOUT), seed=1), added={0: torch.zeros(len(LAYOUT), 32)})
    ]
    compiled = [parse_intervention(e).compile(LAYOUT, 3) for e in ("full", "video->last")]
    plain = model(inputs_embeds=inputs[0].embeds[None]).logits

    def explode(*_):
        raise RuntimeError("out of memory")

    bomb = model.model.layers[2].register_forward_hook(explode)
    for run in (
        lambda: decoder.answer_logits(inputs, [compiled]),
        lambda: decoder.generate(inputs[0], compiled, max_new_tokens=2),
    ):
        with pytest.raises(RuntimeError, match="out of memory"):
            run()
    bomb.remove()
    assert not hooks_of(model)
    assert torch.equal(model(inputs_embeds=inputs[0].embeds[None]).logits, plain)


@pytest.mark.parametrize("family", FAMILIES)
def test_added_vectors_arrive_in_every_branch(family):
    """Vectors added after a layer (DeepStack) reach all rows alike, branched or not, in both ways
    to run.
    """
    model, n = tiny(family, 3), len(LAYOUT)
    added = {0: embeddings(n, seed=8), 1: embeddings(n, seed=9)}
    inputs = DecoderInputs(embeddings(n, seed=1), added=added)
    compiled = [
        parse_intervention(e).compile(LAYOUT, 3) for e in ("full", "video->last@1", "stem->last@3")
    ]
    (found,) = Decoder(model).answer_logits([inputs], [compiled])
    _, first = Decoder(model).generate(inputs, compiled, max_new_tokens=2)
    hooks = [
        model.model.layers[layer].register_forward_hook(
            lambda m, a, out, v=vectors: (
                (out[0] + v, *out[1:]) if isinstance(out, tuple) else out + v
            )
        )
        for layer, vectors in added.items()
    ]
    try:
        for row, item in enumerate(compiled):
            with apply(BatchMasks.of([item])), torch.no_grad():
                alone = model(inputs_embeds=inputs.embeds[None]).logits[0, -1]
            torch.testing.assert_close(found[row], alone, **TOLERANCE)
            torch.testing.assert_close(first[row], alone, **TOLERANCE)
    finally:
        for hook in hooks:
            hook.remove()


@given(st.data())
@few
def test_order_and_company_do_not_matter(data):
    """An intervention's logits do not depend on what else runs beside it."""
    n_layers, prompt = 3, data.draw(prompts(max_frames=2))
    chosen = data.draw(st.lists(specs(prompt, n_layers, random=True), min_size=2, max_size=4))
    compiled = [compile_spec(prompt, spec, n_layers, key="q") for spec in chosen]
    decoder, inputs = (
        Decoder(tiny("llama-gqa", n_layers)),
        DecoderInputs(embeddings(len(layout_of(prompt)), 0)),
    )
    (together,) = decoder.answer_logits([inputs], [compiled])
    (backwards,) = decoder.answer_logits([inputs], [compiled[::-1]])
    torch.testing.assert_close(together, backwards.flip(0), **TOLERANCE)
    for row, item in zip(together, compiled, strict=True):
        torch.testing.assert_close(
            row[None], decoder.answer_logits([inputs], [[item]])[0], **TOLERANCE
        )


def test_a_prompt_without_interventions_changes_nothing_for_the_others():
    decoder = Decoder(tiny("llama-gqa", 3))
    inputs = [DecoderInputs(embeddings(len(LAYOUT), seed)) for seed in (1, 2, 3)]
    compiled = [parse_intervention(e).compile(LAYOUT, 3) for e in ("full", "video->last@2")]
    none, first, last = decoder.answer_logits(inputs, [[], compiled, compiled[:1]])
    assert none.shape[0] == 0
    torch.testing.assert_close(
        first, decoder.answer_logits([inputs[1]], [compiled])[0], **TOLERANCE
    )
    torch.testing.assert_close(
        last, decoder.answer_logits([inputs[2]], [compiled[:1]])[0], **TOLERANCE
    )


def test_two_draws_of_one_random_policy_are_two_branches():
    decoder, random = Decoder(tiny("llama-gqa", 3)), parse_intervention("random:ratio=0.4,seed=1")
    inputs = DecoderInputs(embeddings(len(LAYOUT), seed=1))
    draws = [random.compile(LAYOUT, 3, key=key) for key in ("a", "b")]
    (logits,) = decoder.answer_logits([inputs], [draws])
    assert (logits[0] - logits[1]).abs().max() > 1e-4
    near = [
        parse_intervention(f"random:ratio={r},seed=1").compile(LAYOUT, 3) for r in (0.4, 0.4000001)
    ]
    (logits,) = decoder.answer_logits([inputs], [near])
    assert torch.equal(logits[0], logits[1])

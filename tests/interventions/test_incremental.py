"""The incremental executor against one masked forward pass for every intervention, on tiny random
decoders.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import Prompt, allowed
from strategies import STYLES, cases, compile_spec, layout_of, quick, specs
from tiny_models import HIDDEN, SIZES, embeddings, tiny
from torch import Tensor
from transformers import (
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from mapflow.model_adapters.interventions import (
    BatchMasks,
    Compiled,
    Decoder,
    apply,
    parse_intervention,
)
from mapflow.model_adapters.interventions.execution.decoder_inputs import DecoderInputs
from mapflow.model_adapters.interventions.execution.incremental import answer_logits
from mapflow.model_adapters.interventions.execution.layer_arguments import StretchIndex
from mapflow.model_adapters.interventions.execution.memory_plan import Widths, plan_passes
from mapflow.model_adapters.interventions.execution.schedule import schedule
from mapflow.model_adapters.interventions.language.liveness import live_segments
from mapflow.results.contract.errors import MapflowError

SINGLE, DOUBLE = 1e-6, 1e-7
"""Bounds on probabilities. In double precision the only difference is the rounding of logits to
float32.
"""
LAYERS = 5


def phi3(layers: int) -> PreTrainedModel:
    """Fused projections, and a sliding window shorter than most prompts."""
    config = Phi3Config(
        num_hidden_layers=layers, num_key_value_heads=2, sliding_window=6, pad_token_id=0, **SIZES
    )
    return Phi3ForCausalLM(config)


def sliding(layers: int) -> PreTrainedModel:
    """Full attention below, a sliding window above."""
    config = Qwen2Config(
        num_hidden_layers=layers,
        num_key_value_heads=1,
        use_sliding_window=True,
        sliding_window=4,
        max_window_layers=2,
        **SIZES,
    )
    return Qwen2ForCausalLM(config)


@cache
def decoder_of(name: str, layers: int, dtype: torch.dtype = torch.float64) -> Decoder:
    if name not in ("phi3", "sliding"):
        model = copy.deepcopy(tiny(name, layers))
        model.lm_head.weight.mul_(
            0.3
        )  # these weights are generic, and would turn one rounding into 1e-5 of probability
        return Decoder(model.to(dtype))
    torch.manual_seed(0)
    model = {"phi3": phi3, "sliding": sliding}[name](layers).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.mul_(12)
    return Decoder(model.to(dtype))


def inputs_of(n: int, dtype: torch.dtype = torch.float64, **more) -> DecoderInputs:
    return DecoderInputs(embeddings(n, 3).to(dtype), **more)


DECODERS = ("llama-mha", "llama-gqa", "qwen2-gqa", "phi3", "sliding")


@torch.inference_mode()
def naive(decoder: Decoder, inputs: DecoderInputs, compiled: Sequence[Compiled]) -> Tensor:
    """Probabilities, each from one forward pass over all positions and layers."""
    rows = []
    for one in compiled:
        with apply(BatchMasks.of([one])), decoder.adding_vectors(inputs.added):
            hidden = decoder.core(
                inputs_embeds=inputs.embeds[None],
                position_ids=inputs.batched_position_ids,
                use_cache=False,
            ).last_hidden_state
        rows.append(decoder.logits(hidden[:, -1]))
    return torch.cat(rows).softmax(-1)


def check(
    decoder: Decoder, inputs: DecoderInputs, compiled: Sequence[Compiled], **planned
) -> float:
    """Returns by how much the interventions differ from the first of them."""
    widths = Widths.of(decoder.core.config, 4)
    fast = answer_logits(
        decoder, inputs, compiled, plan_passes(compiled, widths, **planned)
    ).softmax(-1)
    slow = naive(decoder, inputs, compiled)
    assert fast.shape == slow.shape
    single = inputs.embeds.dtype == torch.float32
    assert (fast - slow).abs().max().item() <= (SINGLE if single else DOUBLE)
    return (slow - slow[0]).abs().max().item()


def windows(routes: Sequence[str], size: int, n_layers: int) -> list[str]:
    """Every route × style × layer, the plain run first."""
    return [
        "full",
        *(
            f"knockout:{route}@{style}={layer}"
            + (f",window={size}" if style in ("center", "inverse") else "")
            for route in routes
            for style in STYLES
            for layer in range(1, n_layers + 1)
        ),
    ]


ROUTES = (
    "cross-frame",
    "video->question",
    "video->last",
    "question->last",
    "last->last",
    "video->true_option",
    "stem->false_options",
    "system->template",
    "all->all",
)
PROMPT = Prompt(
    (
        *[("system", 0)] * 2,
        *[("frame", i) for i in range(3) for _ in range(3)],
        ("template", 0),
        ("label", 0),
        *[("stem", 0)] * 2,
        *[("option", 0)] * 2,
        ("label", 0),
        *[("option", 1)] * 2,
        *[("template", 0)] * 2,
        ("last", 0),
    ),
    true_option=1,
)


def sweep(routes: Sequence[str] = ROUTES, size: int = 3, n_layers: int = LAYERS) -> list[Compiled]:
    layout = layout_of(PROMPT)
    texts = windows(routes, size, n_layers)
    return [parse_intervention(text).compile(layout, n_layers) for text in texts]


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("size", [1, 2, 3, 9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_all_windows_of_a_sweep_equal_one_forward_pass_each(name, size, dtype):
    decoder, inputs = decoder_of(name, LAYERS, dtype), inputs_of(len(PROMPT), dtype)
    compiled = sweep(size=size)
    assert check(decoder, inputs, compiled) > 1000 * SINGLE, (
        "the cuts change nothing: the test shows nothing"
    )


@pytest.mark.parametrize("name", DECODERS)
@quick
@given(case=cases(random=True), data=st.data())
def test_any_interventions_together_equal_one_forward_pass_each(name, case, data):
    prompt, spec, n_layers = case
    more = data.draw(st.lists(specs(prompt, n_layers, random=True), max_size=4))
    compiled = [compile_spec(prompt, each, n_layers, key="q") for each in (spec, *more)]
    check(decoder_of(name, n_layers), inputs_of(len(prompt)), compiled)


@pytest.mark.parametrize("name", ["llama-gqa", "sliding"])
def test_positions_and_added_vectors_come_along(name):
    n = len(PROMPT)
    positions = torch.arange(n).mul(3).remainder(50)[None]
    added = {0: embeddings(n, 8), LAYERS - 2: embeddings(n, 9)}
    check(decoder_of(name, LAYERS), inputs_of(n, position_ids=positions, added=added), sweep())


@settings(quick, max_examples=10)
@given(case=cases(max_layers=3), budget=st.integers(1, 40_000))
def test_a_memory_budget_changes_no_number(case, budget):
    prompt, spec, n_layers = case
    texts = windows(["video->last", "cross-frame"], 3, n_layers)
    compiled = [parse_intervention(text).compile(layout_of(prompt), n_layers) for text in texts]
    compiled.append(compile_spec(prompt, spec, n_layers))
    decoder = decoder_of("llama-gqa", n_layers)
    check(decoder, inputs_of(len(prompt)), compiled, memory_budget=budget)


def test_hooks_and_plan_are_gone_after_an_error():
    decoder = decoder_of("llama-mha", 2)
    compiled = sweep(n_layers=2)
    with pytest.raises(RuntimeError):
        answer_logits(
            decoder, DecoderInputs(torch.zeros(len(PROMPT), HIDDEN + 1).double()), compiled
        )
    assert all(
        not layer._forward_hooks and not layer._forward_pre_hooks for layer in decoder.layers
    )
    check(decoder, inputs_of(len(PROMPT)), compiled)


def test_a_model_that_works_between_its_layers_is_refused():
    decoder = decoder_of("llama-mha", 2)
    hook = decoder.layers[0].register_forward_hook(
        lambda module, args, output: output * 2, prepend=False
    )
    outer = decoder.layers[1].register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    try:
        with pytest.raises(MapflowError, match="between its layers"):
            answer_logits(decoder, inputs_of(len(PROMPT)), sweep(n_layers=2))
    finally:
        hook.remove()
        outer.remove()


class Meter:
    """Rows that go through the layers' feed-forward halves, and through their key projections."""

    def __init__(self, decoder: Decoder) -> None:
        self.rows = self.keys = 0
        self.hooks = []
        for layer in decoder.layers:
            self.hooks.append(layer.mlp.register_forward_pre_hook(self._count("rows")))
            self.hooks.append(layer.self_attn.k_proj.register_forward_pre_hook(self._count("keys")))

    def _count(self, name: str):
        def add(module, args) -> None:
            setattr(self, name, getattr(self, name) + args[0].shape[0] * args[0].shape[1])

        return add

    def stop(self) -> None:
        for hook in self.hooks:
            hook.remove()


@quick
@given(case=cases(random=True), data=st.data())
def test_the_plan_s_row_layers_are_those_that_are_run(case, data):
    prompt, spec, n_layers = case
    more = data.draw(st.lists(specs(prompt, n_layers, random=True), max_size=4))
    compiled = [compile_spec(prompt, each, n_layers, key="q") for each in (spec, *more)]
    decoder, inputs = decoder_of("llama-gqa", n_layers), inputs_of(len(prompt))
    planned = plan_passes(compiled)
    meter = Meter(decoder)
    answer_logits(decoder, inputs, compiled, planned)
    assert meter.rows == planned.row_layers
    assert meter.keys == planned.row_layers + planned.key_row_layers
    meter.rows = 0
    naive(decoder, inputs, compiled)
    meter.stop()
    assert meter.rows == planned.naive_row_layers


def needed_rows(prompt: Prompt, masks: Sequence[Sequence[Sequence[bool]]]) -> list[set[int]]:
    """By layer, in loops over positions: rows whose output differs from the plain run's and
    reaches the answer.
    """
    n, changed, per_layer = len(prompt), set(), []
    for mask in masks:
        lost = {q for q in range(n) if not all(mask[q][: q + 1])}
        changed = changed | lost | {q for q in range(n) if any(mask[q][k] for k in changed)}
        per_layer.append(changed)
    live = {n - 1}
    for layer in reversed(range(len(masks))):
        per_layer[layer] = per_layer[layer] & live
        live = live | {k for q in live for k in range(n) if masks[layer][q][k]}
    return per_layer


@quick
@given(case=cases(usual=True))
def test_one_intervention_computes_the_rows_that_it_changes_and_the_answer_uses(case):
    """By segments, as a segment is computed whole; a job of one step also runs rows that only
    bring keys.
    """
    prompt, spec, n_layers = case
    compiled = compile_spec(prompt, spec, n_layers)
    masks = [allowed(prompt, spec, layer + 1, n_layers) for layer in range(n_layers)]
    plain = parse_intervention("full").compile(layout_of(prompt), n_layers)
    planned = schedule([compiled], plain)
    for jobs, rows in zip(planned.layers, needed_rows(prompt, masks), strict=True):
        runs = StretchIndex(planned.sizes, torch.device("cpu"))
        computed = [set(runs.numbers(job.computed).tolist()) for job in jobs if not job.is_trunk]
        own = [set(runs.numbers(job.own).tolist()) for job in jobs if not job.is_trunk]
        assert rows <= set().union(*computed)
        if rows and rows != computed[0]:
            assert {runs.stretch_of[row] for row in rows} <= {
                runs.stretch_of[row] for row in computed[0]
            }
            assert computed == own or len(computed[0]) * 2 <= len(own[0])


@quick
@given(case=cases())
def test_one_intervention_alone_is_one_call_a_layer_and_computes_the_live_rows(case):
    prompt, spec, n_layers = case
    compiled = compile_spec(prompt, spec, n_layers)
    planned, live = schedule([compiled]), live_segments(compiled)
    for layer, jobs in enumerate(planned.layers):
        (job,) = jobs
        rows = int(compiled.layout.sizes[live[layer + 1]].sum())
        assert rows <= planned.count(job.computed) <= 2 * rows
        assert planned.count(job.own) >= int(compiled.layout.sizes[live[layer]].sum())


def test_row_layers_of_the_paper_s_windows_by_hand():
    """One route into `last`: a row for every layer from the window's first on; windows that begin
    at layer 1 share their layers as long as all of them cut.
    """
    layers, size, n = 12, 5, len(PROMPT)
    layout = layout_of(PROMPT)
    texts = [f"knockout:video->last@center={layer},window={size}" for layer in range(1, layers + 1)]
    planned = plan_passes(
        [parse_intervention(text).compile(layout, layers) for text in ["full", *texts]]
    )
    starts = [max(0, layer - size // 2) for layer in range(layers)]
    ends = [min(layers, layer + size // 2 + 1) for layer in range(layers)]
    rows = sum(layers - start for start in starts)
    shared = [end for start, end in zip(starts, ends, strict=True) if start == 0]
    rows -= sum(
        sum(end > layer for end in shared) - 1 for layer in range(min(layers, max(shared) - 1))
    )
    assert planned.row_layers == rows + n * (layers - 1) + 1
    assert planned.key_row_layers == n
    assert planned.naive_row_layers == (layers + 1) * layers * n


def test_passes_and_batches_shrink_with_the_budget_and_say_when_one_is_too_large():
    compiled = sweep()
    widths = Widths.of(decoder_of("llama-gqa", LAYERS).core.config, 4)
    whole = plan_passes(compiled, widths)
    assert len(whole.passes) == 1 and not whole.notes
    for budget in (whole.bytes, whole.bytes // 2, whole.bytes // 4):
        some = plan_passes(compiled, widths, budget)
        assert some.bytes <= budget and not some.notes
        assert sorted(i for one in some.passes for i in one.interventions) == list(
            range(len(compiled))
        )
        assert some.row_layers >= whole.row_layers
    tiny_budget = plan_passes(compiled, widths, 1)
    assert [len(one.interventions) for one in tiny_budget.passes] == [1] * len(compiled)
    assert "one at a time" in tiny_budget.notes[0] and "1 bytes" in tiny_budget.notes[0]

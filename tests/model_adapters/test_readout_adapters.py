"""Every layer of every family of transformers' own: read out, it answers as the model does that
ends there."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from test_incremental_adapters import CHAT, frames
from tiny_hf import FAMILIES, write_tiny_hf
from tiny_hf_masks import OWN

from mapflow.harness.analyses.lens import Lens
from mapflow.harness.analyses.trace import Trace
from mapflow.model_adapters.families.hf.model import HfVideo
from mapflow.model_adapters.interventions import (
    BatchMasks,
    apply,
    parse_interventions,
)


@pytest.mark.parametrize("family", [*FAMILIES, *OWN])
@torch.inference_mode()
def test_families_of_transformers(tmp_path, family):
    """Rotary tables of several axes, and vectors added between layers, which are part of what the
    next layer reads."""
    model = HfVideo.load(write_tiny_hf(tmp_path, family), dtype=torch.float32)
    prepared = model.encode(CHAT, frames(4, 16))
    decoder, core = model.decoder, model.decoder.core
    layers, n_layers = core.layers, model.decoder.n_layers
    interventions = tuple(parse_interventions(["full,video->last+video->template"]))
    traces = Trace(interventions).measure(model, prepared)
    lenses = Lens(interventions, k=3).measure(model, prepared)
    (inputs,) = model.embed([prepared])
    video = prepared.layout.positions("video")
    for intervention, trace, lens in zip(interventions, traces, lenses, strict=True):
        assert trace.error is None and len(trace.p_targets) == len(lens.ids) == n_layers
        compiled = model.compile(intervention, prepared, inputs)
        for depth in range(1, n_layers + 1):
            added = {layer: vectors for layer, vectors in inputs.added.items() if layer < depth}
            batch = inputs.embeds[None]
            keywords = decoder._keywords(replace(inputs, added=added), batch)
            core.layers = layers[:depth]
            try:
                with apply(BatchMasks.of([compiled])), decoder.adding_vectors(added):
                    hidden = core(
                        inputs_embeds=batch, use_cache=False, **keywords
                    ).last_hidden_state[0]
            finally:
                core.layers = layers
            answers = decoder.logits(hidden[-1:])[0].softmax(-1)
            assert trace.p_targets[depth - 1] == pytest.approx(
                float(answers[prepared.target_id]), rel=1e-4
            )
            found = torch.tensor(lens.probabilities[depth - 1])
            seen = decoder.logits(hidden[video]).softmax(-1)
            torch.testing.assert_close(found, seen.topk(3).values, rtol=1e-4, atol=1e-6)
    assert traces[0].p_targets != traces[1].p_targets

"""Logits come through all that a model does after its decoder, in every way of running it."""

from __future__ import annotations

import pytest
import torch
import transformers as hf

from mapflow.model_adapters.interventions import (
    Decoder,
    DecoderInputs,
    Segment,
    TokenLayout,
    parse_intervention,
)
from mapflow.model_adapters.interventions.execution import incremental
from mapflow.model_adapters.interventions.execution.readout import hidden_states, layer_outputs
from mapflow.model_adapters.interventions.inspection.layers import uncut_layers_allowed

LAYOUT = TokenLayout.from_runs(
    [(Segment("system"), 2), (Segment("frame", 0), 3), (Segment("stem"), 4), (Segment("last"), 1)]
)
SIZES = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0,
}  # fmt: skip
TAILS = {
    "Cohere2": {"logit_scale": 0.25},
    "Granite": {"logits_scaling": 8.0},
    "Gemma2": {"final_logit_softcapping": 2.0, "head_dim": 8},
    "MiniCPM3": {
        "q_lora_rank": 8, "kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8,
        "v_head_dim": 8, "num_key_value_heads": 4, "head_dim": 8, "dim_model_base": 8,
    },
    "NanoChat": {},
    "FalconH1": {
        "mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8,
        "mamba_n_groups": 1, "head_dim": 8, "lm_head_multiplier": 0.3,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", TAILS)
def test_logits_are_the_models_own_behind_scales_and_caps(name):
    torch.manual_seed(0)
    config = getattr(hf, f"{name}Config")(**{**SIZES, **TAILS[name]})
    model = getattr(hf, f"{name}ForCausalLM")(config).eval().requires_grad_(False)
    torch.nn.init.normal_(model.get_output_embeddings().weight, std=1.0)
    embeds = torch.randn(len(LAYOUT), 32)
    with torch.inference_mode():
        own = model(inputs_embeds=embeds[None], use_cache=False).logits[0, -1]
    with uncut_layers_allowed(True):
        decoder = Decoder(model)
    inputs, full = DecoderInputs(embeds), parse_intervention("full").compile(LAYOUT, 2)
    found = {
        "batch": decoder.answer_logits([inputs], [[full]])[0][0],
        "generation": decoder.generate(inputs, [full], 1)[1][0],
    }
    if name != "FalconH1":
        found["incremental"] = incremental.answer_logits(decoder, inputs, [full])[0]
        states = hidden_states(decoder, inputs, full, LAYOUT.positions("last"))
        found["lens"] = decoder.logits(layer_outputs(decoder, states)[-1])[0]
    for way, logits in found.items():
        torch.testing.assert_close(logits, own, rtol=1e-4, atol=1e-5, msg=way)
    with torch.inference_mode():
        last = decoder.core(inputs_embeds=embeds[None]).last_hidden_state[0, -1]
        alone = decoder._head(last)
    assert (alone - own).abs().max() > 1e-2, "a tail that does nothing proves nothing"

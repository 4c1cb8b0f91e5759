"""Text architectures inside InternVL's wrapper, as tiny random checkpoints: settings of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tiny_hf
import transformers as hf
from tiny_hf import CHATML, FRAME, text_config, tokenizer, write_tiny_hf

WINDOWED = {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"] * 2}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
LATENT = {
    "q_lora_rank": 8, "kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8,
    "v_head_dim": 8, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1,
    "topk_group": 1, "moe_intermediate_size": 16, "first_k_dense_replace": 2,
    "num_key_value_heads": 4,
}  # fmt: skip
LINEAR = {
    "head_dim": 8, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    "linear_num_key_heads": 2, "linear_num_value_heads": 4,
    "layer_types": ["linear_attention", "full_attention"] * 2,
}  # fmt: skip
STATES = {
    "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1,
}  # fmt: skip

VERIFIED: dict[str, dict[str, Any]] = {
    "MiMoV2FlashConfig": {
        "head_dim": 8, "v_head_dim": 8, "sliding_window": 16, "n_routed_experts": 4,
        "num_experts_per_tok": 2, "moe_intermediate_size": 16,
    },
}  # fmt: skip
LENGTHS = {
    "longrope": {"short_factor": [1.0] * 4, "long_factor": [3.0] * 4},
    "dynamic": {"factor": 4.0},
}
"""Rotary scaling by the length of what is run, beyond 110 positions."""

RUN: dict[str, dict[str, Any]] = {
    "Cohere2Config": {**WINDOWED, "logit_scale": 0.25},
    "GraniteConfig": {
        "logits_scaling": 8.0, "embedding_multiplier": 3.0, "residual_multiplier": 0.5,
        "attention_multiplier": 0.2,
    },
    "Olmo2Config": {},
    "Glm4Config": {"head_dim": 8},
    "Starcoder2Config": {"sliding_window": 16},
    "StableLmConfig": {},
    "Gemma2Config": {
        **WINDOWED, "head_dim": 8, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 2.0,
    },
    "Gemma3TextConfig": {**WINDOWED, "head_dim": 8, "query_pre_attn_scalar": 8},
    "GptOssConfig": {**WINDOWED, **EXPERTS, "head_dim": 8},
    "PhimoeConfig": EXPERTS,
    "MixtralConfig": EXPERTS,
    "NemotronConfig": {},
    "HeliumConfig": {"head_dim": 8},
    "SmolLM3Config": {"no_rope_layers": [1, 0, 1, 0]},
    "Llama4TextConfig": {
        "head_dim": 8, "attention_chunk_size": 16, "moe_layers": [], "intermediate_size_mlp": 48,
        "layer_types": ["chunked_attention", "full_attention"] * 2, "num_local_experts": 2,
    },
    "DeepseekV3Config": LATENT,
    "DiffLlamaConfig": {},
}  # fmt: skip
"""Settings of architectures that interventions run on."""

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "FalconH1Config": (
        {**STATES, "mamba_d_ssm": 32, "mamba_d_head": 8, "head_dim": 8},
        "layers 1-4 .* mix positions besides their attention",
    ),
    "JambaConfig": (
        {
            "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2,
            "expert_layer_offset": 1, "num_experts": 2, "mamba_d_state": 4, "mamba_dt_rank": 4,
            "use_mamba_kernels": False,
        },
        "layers 1,3 .*JambaMambaMixer.* mix positions without attention",
    ),
    "Qwen3NextConfig": (
        {
            **LINEAR, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 16,
        },
        r"layers 1,3 \(Qwen3NextGatedDeltaNet\) mix positions without attention",
    ),
    "Qwen3_5TextConfig": (LINEAR, "layers 1,3 .* mix positions without attention"),
    "Lfm2Config": (
        {"layer_types": ["conv", "full_attention"] * 2, "block_auto_adjust_ff_dim": False},
        r"layers 1,3 \(Lfm2ShortConv\) mix positions without attention",
    ),
    "BambaConfig": (
        {**STATES, "attn_layer_indices": [1, 3]},
        "layers 1,3 .* mix positions without attention",
    ),
    "NemotronHConfig": (
        {
            "hybrid_override_pattern": "M*-*", "layers_block_type": None, "mamba_num_heads": 4,
            "mamba_head_dim": 16, "ssm_state_size": 8, "n_groups": 1, "head_dim": 8,
            "chunk_size": 16,
        },
        r"layers 1 \(.*\) mix positions without attention",  # layer 3 is an MLP and mixes nothing
    ),
    "RecurrentGemmaConfig": (
        {"block_types": ["recurrent", "attention"], "lru_width": 32, "head_dim": 8},
        "layers 1,3 .* mix positions without attention",
    ),
    "Mamba2Config": (
        {"state_size": 8, "num_heads": 4, "head_dim": 16, "n_groups": 1, "chunk_size": 16},
        "has no attention that could be cut",
    ),
    "DeepseekV32Config": (
        {**LATENT, "index_topk": 8, "index_n_heads": 2, "index_head_dim": 8},
        "passes 'indices' to its attention function",
    ),
    "DogeConfig": ({}, "adds numbers to its attention scores"),
    "BloomConfig": ({"n_head": 4, "n_layer": 4}, "does not support transformers' attention"),
}  # fmt: skip
"""Settings of architectures that are refused, and the reason."""


def by_length(kind: str) -> dict[str, Any]:
    """Settings of a text model whose rotary table changes beyond 110 positions."""
    length = {"original_max_position_embeddings": 110}
    rope = {"rope_type": kind, "rope_theta": 1e4, **length, **LENGTHS[kind]}
    declared = 110 if kind == "dynamic" else 1024
    return {**length, "rope_parameters": rope, "max_position_embeddings": declared}


def internvl_with(config_class: str) -> tuple[Any, Any]:
    """InternVL's model and processor around this text model."""
    changes = (RUN | VERIFIED).get(config_class) or REFUSED.get(config_class, ({}, ""))[0]
    named = {
        "start_image_token": "<img>", "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>", "video_token": "<video>",
    }  # fmt: skip
    tok = tokenizer(tuple(named.values()), named)
    text = text_config(getattr(hf, config_class), len(tok), 4, **changes)
    vision = {
        "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 2, "image_size": [16, 16], "patch_size": [4, 4],
    }  # fmt: skip
    config = hf.InternVLConfig(
        text_config=text.to_dict(),
        vision_config=vision,
        image_seq_length=4,
        tie_word_embeddings=False,
        image_token_id=tok.convert_tokens_to_ids("<IMG_CONTEXT>"),
    )
    processor = hf.InternVLProcessor(
        hf.GotOcr2ImageProcessor(size=FRAME),
        tok,
        hf.InternVLVideoProcessor(size=FRAME),
        image_seq_length=4,
        chat_template=CHATML.replace("VIDEO", "<video>\n"),
    )
    return hf.InternVLForConditionalGeneration(config), processor


def write_text_model(folder: Path, config_class: str) -> Path:
    """The checkpoint folder of `internvl_with(config_class)`."""
    tiny_hf.BUILDERS[config_class] = lambda layers: internvl_with(config_class)
    try:
        return write_tiny_hf(folder, config_class)
    finally:
        del tiny_hf.BUILDERS[config_class]

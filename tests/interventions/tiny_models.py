"""Tiny random decoders and their slow twin: the same weights, run sample by sample, layer by
layer, in float64.

The twin takes the projections, norms and MLPs of the real modules, but does positions, attention
and masking itself, from masks that are plain lists of booleans.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

HIDDEN, VOCAB, HEADS = 32, 61, 4
SIZES = {
    "hidden_size": HIDDEN,
    "intermediate_size": 48,
    "num_attention_heads": HEADS,
    "vocab_size": VOCAB,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
    "bos_token_id": None,
    "eos_token_id": None,
}
FAMILIES = {
    "llama-mha": (LlamaConfig, LlamaForCausalLM, HEADS),
    "llama-gqa": (LlamaConfig, LlamaForCausalLM, HEADS // 2),
    "qwen2-gqa": (Qwen2Config, Qwen2ForCausalLM, 1),
}


@cache
def tiny(family: str, n_layers: int, attention: str = "mapflow", seed: int = 0) -> PreTrainedModel:
    """A model with generic weights, large enough for attention to matter; the same for the same
    arguments.
    """
    config_class, model_class, kv_heads = FAMILIES[family]
    config = config_class(num_hidden_layers=n_layers, num_key_value_heads=kv_heads, **SIZES)
    model = model_class(config).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        scale = 0.3 if parameter.ndim > 1 else 0.1
        values = torch.randn(parameter.shape, generator=generator) * scale
        parameter.data.copy_(values + (1 if "norm" in name else 0))
    model.set_attn_implementation(attention)
    return model


def tiny_llama(n_layers: int) -> PreTrainedModel:
    return tiny("llama-gqa", n_layers)


def embeddings(n: int, seed: int) -> Tensor:
    return torch.randn(n, HIDDEN, generator=torch.Generator().manual_seed(seed))


@cache
def _double(model: PreTrainedModel) -> PreTrainedModel:
    return copy.deepcopy(model).double()


def twin_logits(
    model: PreTrainedModel, embeds: Tensor, masks: Sequence[Sequence[Sequence[bool]]]
) -> Tensor:
    """Logits of every row of one prompt, in float64; `masks[layer][query][key]`. An empty row
    reads nothing.
    """
    model = _double(model)
    hidden = embeds.double()
    n = len(hidden)
    for layer, mask in zip(model.model.layers, masks, strict=True):
        attention = layer.self_attn
        normed = layer.input_layernorm(hidden)
        dim = attention.head_dim
        query = _rotate(attention.q_proj(normed).view(n, -1, dim), model)
        key = _rotate(attention.k_proj(normed).view(n, -1, dim), model)
        value = attention.v_proj(normed).view(n, -1, dim)
        group = torch.arange(query.shape[1]) // (query.shape[1] // key.shape[1])
        read = torch.zeros_like(query)
        for q in range(n):
            keys = [k for k in range(n) if mask[q][k]]
            if keys:
                own_keys, own_values = key[keys][:, group], value[keys][:, group]
                weights = torch.softmax((own_keys * query[q]).sum(-1) / dim**0.5, 0)
                read[q] = (weights[..., None] * own_values).sum(0)
        hidden = hidden + attention.o_proj(read.flatten(1))
        hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
    return model.lm_head(model.model.norm(hidden))


def _rotate(x: Tensor, model: PreTrainedModel) -> Tensor:
    """Rotary positions 0, 1, … as their paper defines them, halves paired."""
    theta = model.config.rope_parameters["rope_theta"]
    half = x.shape[-1] // 2
    frequency = theta ** (-torch.arange(half).double() / half)
    angle = (torch.arange(len(x)).double()[:, None] * frequency)[:, None]
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)

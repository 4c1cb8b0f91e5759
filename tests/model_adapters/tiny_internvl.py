"""A Mini-InternVL checkpoint folder small enough for a unit test: random weights under the released
names, all files.

Names and shapes are written out here, so that loading is compared with what a release holds and not
with itself."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tiny_llava import tiny_tokenizer, write_weights
from tokenizers import AddedToken, Tokenizer
from torch import Tensor
from torch.nn.functional import conv2d, gelu, layer_norm

SPECIAL = ("<|end|>", "<|user|>", "<|assistant|>", "<img>", "</img>", "<IMG_CONTEXT>")


def phi3_tokenizer() -> Tokenizer:
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL])
    return tokenizer


def tiny_internvl_config(
    *, vision: Mapping[str, Any] | None = None, text: Mapping[str, Any] | None = None, **top: Any
) -> dict[str, Any]:
    """A config.json as the released one is written; `vision`, `text` and the rest replace single
    values."""
    return {
        "architectures": ["InternVLChatModel"],
        "model_type": "internvl_chat",
        "auto_map": {"AutoModel": "modeling_internvl_chat.InternVLChatModel"},
        "downsample_ratio": 0.5,
        "num_frames": 4,
        "ps_version": "v2",
        "select_layer": -1,
        "template": "phi3-chat",
        "torch_dtype": "float32",
        "llm_config": {
            "architectures": ["Phi3ForCausalLM"],
            "model_type": "phi3",
            "attn_implementation": "flash_attention_2",
            "vocab_size": phi3_tokenizer().get_vocab_size(),
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "max_position_embeddings": 4096,
            "original_max_position_embeddings": 256,
            "rope_scaling": {
                "type": "su",
                "short_factor": [1.0, 1.1, 1.3, 1.6],
                "long_factor": [1.0, 2.0, 8.0, 30.0],
            },
            "sliding_window": 16,
            "pad_token_id": 0,
            **(text or {}),
        },
        "vision_config": {
            "model_type": "intern_vit_6b",
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 7,
            "norm_type": "layer_norm",
            "qkv_bias": True,
            "qk_normalization": False,
            **(vision or {}),
        },
        **top,
    }


def released_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every tensor of such a release."""
    vision, text = config["vision_config"], config["llm_config"]
    width, inner = vision["hidden_size"], vision["intermediate_size"]
    hidden, mlp, vocabulary = text["hidden_size"], text["intermediate_size"], text["vocab_size"]
    kv = text["num_key_value_heads"] * hidden // text["num_attention_heads"]
    patches = (vision["image_size"] // vision["patch_size"]) ** 2
    merged = width * round(1 / config["downsample_ratio"]) ** 2
    norms = ("weight", "bias") if vision["norm_type"] == "layer_norm" else ("weight",)
    shapes: dict[str, tuple[int, ...]] = {
        "vision_model.embeddings.class_embedding": (1, 1, width),
        "vision_model.embeddings.patch_embedding.weight": (
            width,
            3,
            vision["patch_size"],
            vision["patch_size"],
        ),
        "vision_model.embeddings.patch_embedding.bias": (width,),
        "vision_model.embeddings.position_embedding": (1, patches + 1, width),
        "mlp1.0.weight": (merged,),
        "mlp1.0.bias": (merged,),
        "mlp1.1.weight": (hidden, merged),
        "mlp1.1.bias": (hidden,),
        "mlp1.3.weight": (hidden, hidden),
        "mlp1.3.bias": (hidden,),
        "language_model.model.embed_tokens.weight": (vocabulary, hidden),
        "language_model.model.norm.weight": (hidden,),
        "language_model.lm_head.weight": (vocabulary, hidden),
    }
    for layer in range(vision["num_hidden_layers"]):
        prefix = f"vision_model.encoder.layers.{layer}."
        shapes |= {prefix + f"norm{n}.{leaf}": (width,) for n in (1, 2) for leaf in norms}
        shapes |= {prefix + f"ls{n}": (width,) for n in (1, 2)}
        shapes |= {prefix + "attn.qkv.weight": (3 * width, width)}
        shapes |= {prefix + "attn.proj.weight": (width, width), prefix + "attn.proj.bias": (width,)}
        shapes |= {prefix + "mlp.fc1.weight": (inner, width), prefix + "mlp.fc1.bias": (inner,)}
        shapes |= {prefix + "mlp.fc2.weight": (width, inner), prefix + "mlp.fc2.bias": (width,)}
        if vision["qkv_bias"]:
            shapes[prefix + "attn.qkv.bias"] = (3 * width,)
        if vision["qk_normalization"]:
            shapes |= {prefix + f"attn.{x}_norm.weight": (width,) for x in "qk"}
    for layer in range(text["num_hidden_layers"]):
        prefix = f"language_model.model.layers.{layer}."
        shapes |= {
            prefix + "input_layernorm.weight": (hidden,),
            prefix + "post_attention_layernorm.weight": (hidden,),
            prefix + "self_attn.qkv_proj.weight": (hidden + 2 * kv, hidden),
            prefix + "self_attn.o_proj.weight": (hidden, hidden),
            prefix + "mlp.gate_up_proj.weight": (2 * mlp, hidden),
            prefix + "mlp.down_proj.weight": (hidden, mlp),
        }
    return shapes


def random_weights(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    """Random values, large enough that every tensor moves the logits."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator) * (0.3 if len(shape) > 1 else 0.1)
        + (1.0 if "norm" in name and name.endswith("weight") else 0.0)
        for name, shape in shapes.items()
    }


def write_tiny_internvl(
    folder: Path, config: Mapping[str, Any] | None = None, shards: int = 1
) -> Path:
    """A complete folder; with `shards` > 1 the weights are spread over that many files and an
    index."""
    folder.mkdir(parents=True, exist_ok=True)
    config = tiny_internvl_config() if config is None else config
    size = config["vision_config"]["image_size"]
    phi3_tokenizer().save(str(folder / "tokenizer.json"))
    tokens = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "tokenizer_class": "LlamaTokenizer",
    }
    preprocessor = {
        "size": {"shortest_edge": size},
        "crop_size": {"height": size, "width": size},
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "rescale_factor": 0.00392156862745098,
        "resample": 3,
    }
    for name, content in {
        "config.json": config,
        "tokenizer_config.json": tokens,
        "preprocessor_config.json": preprocessor,
    }.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    write_weights(folder, random_weights(released_shapes(config)), shards)
    return folder


def norm(x: Tensor, weights: Mapping[str, Tensor], name: str) -> Tensor:
    weight = weights[f"{name}.weight"]
    if f"{name}.bias" in weights:
        return layer_norm(x, weight.shape, weight, weights[f"{name}.bias"], eps=1e-6)
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * weight


def reference_video_tokens(
    config: Mapping[str, Any], weights: Mapping[str, Tensor], pixels: Tensor
) -> Tensor:
    """Reference implementation on the authors' tensors: loops over heads and squares of patches."""
    vision = config["vision_config"]
    depth, heads = vision["num_hidden_layers"], vision["num_attention_heads"]
    patch, side = vision["patch_size"], vision["image_size"] // vision["patch_size"]
    tower = {
        n.removeprefix("vision_model."): w
        for n, w in weights.items()
        if n.startswith("vision_model.")
    }

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ tower[f"{name}.weight"].T + tower.get(f"{name}.bias", torch.zeros(()))

    kernel, bias = (
        tower["embeddings.patch_embedding.weight"],
        tower["embeddings.patch_embedding.bias"],
    )
    x = conv2d(pixels, kernel, bias, stride=patch).flatten(2).transpose(1, 2)
    x = torch.cat([tower["embeddings.class_embedding"].expand(len(x), -1, -1), x], 1)
    x = x + tower["embeddings.position_embedding"]
    for layer in range(depth + 1 + config["select_layer"]):
        at = f"encoder.layers.{layer}"
        q, k, v = linear(norm(x, tower, f"{at}.norm1"), f"{at}.attn.qkv").chunk(3, -1)
        if vision["qk_normalization"]:
            q, k = norm(q, tower, f"{at}.attn.q_norm"), norm(k, tower, f"{at}.attn.k_norm")
        size = q.shape[-1] // heads
        mixed = []
        for head in range(heads):
            here = slice(head * size, (head + 1) * size)
            scores = q[..., here] @ k[..., here].transpose(1, 2) / math.sqrt(size)
            mixed.append(scores.softmax(-1) @ v[..., here])
        x = x + tower[f"{at}.ls1"] * linear(torch.cat(mixed, -1), f"{at}.attn.proj")
        inner = gelu(linear(norm(x, tower, f"{at}.norm2"), f"{at}.mlp.fc1"))
        x = x + tower[f"{at}.ls2"] * linear(inner, f"{at}.mlp.fc2")
    grid, merge = x[:, 1:].unflatten(1, (side, side)), round(1 / config["downsample_ratio"])
    squares = range(0, side, merge)
    near = [(r, c) for r in range(merge) for c in range(merge)]
    shuffled = torch.stack(
        [
            torch.stack(
                [torch.cat([f[i + r, j + c] for r, c in near]) for i in squares for j in squares]
            )
            for f in grid
        ]
    )
    wide = layer_norm(
        shuffled, shuffled.shape[-1:], weights["mlp1.0.weight"], weights["mlp1.0.bias"]
    )
    hidden = gelu(wide @ weights["mlp1.1.weight"].T + weights["mlp1.1.bias"])
    return (hidden @ weights["mlp1.3.weight"].T + weights["mlp1.3.bias"]).flatten(0, 1)

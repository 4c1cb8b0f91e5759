"""A VideoLLaMA3 checkpoint folder small enough for a unit test: random weights under the released
names, all files.

Names and shapes are written out here, so that loading is compared with what a release holds and not
with itself. Two layouts: the hub's, and the local one, whose vision tower's config and preprocessor
lie in a folder beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

from mapflow.results.contract.question import Clip, Prompt, Question

SPECIAL = ("<|im_end|>", "<|endoftext|>", "<|im_start|>", "<image>")
TOWER = "tiny-navit"
PROMPT = Prompt(
    system="",
    stem_label="Question: ",
    options_label="\nOptions:\n",
    option="({letter}) {text}",
    option_separator="\n",
    instruction="\nAnswer with the option's letter from the given choices directly.",
    answer_prefix="",
)


def qwen2_tokenizer() -> Tokenizer:
    """Byte-level as Qwen2's, which merges a sentence's end with the line's end."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = (".Ċ", "?Ċ", ":Ċ", "(A", "(B", "Ġt", "Ġth", "Ġthe")
    merges = [
        (".", "Ċ"),
        ("?", "Ċ"),
        (":", "Ċ"),
        ("(", "A"),
        ("(", "B"),
        ("Ġ", "t"),
        ("Ġt", "h"),
        ("Ġth", "e"),
    ]
    model = models.BPE({token: index for index, token in enumerate([*alphabet, *words])}, merges)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL])
    return tokenizer


def tiny_vision_config(**changes: Any) -> dict[str, Any]:
    return {
        "architectures": ["Videollama3VisionEncoderModel"],
        "model_type": "videollama3_vision_encoder",
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_channels": 3,
        "patch_size": 7,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-6,
        "attention_dropout": 0.0,
        "torch_dtype": "float32",
        **changes,
    }


def tiny_videollama3_config(*, local: bool = False, **changes: Any) -> dict[str, Any]:
    """A config.json in the hub's layout or, `local`, in that of the paper's class."""
    tokenizer = qwen2_tokenizer()
    tower = {"vision_encoder": TOWER} if local else {"vision_encoder_config": tiny_vision_config()}
    return {
        "architectures": ["Videollama3Qwen2ForCausalLM"],
        "model_type": "videollama3_qwen2",
        "auto_map": {"AutoModelForCausalLM": "modeling_videollama3.Videollama3Qwen2ForCausalLM"},
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "rope_scaling": None,
        "rope_theta": 1000000.0,
        "vocab_size": tokenizer.get_vocab_size(),
        "image_token_index": tokenizer.token_to_id("<image>"),
        "eos_token_id": tokenizer.token_to_id("<|im_end|>"),
        "mm_projector_type": "mlp2x_gelu",
        "mm_attn_implementation": "flash_attention_2",
        "use_token_compression": True,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        **tower,
        **changes,
    }


def released_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every tensor of such a release, in the layout that its config tells."""
    vision = config.get("vision_encoder_config") or tiny_vision_config()
    local = "vision_encoder_config" not in config
    tower = "model.vision_encoder.vision_encoder." if local else "model.vision_encoder."
    width, inner, patch = vision["hidden_size"], vision["intermediate_size"], vision["patch_size"]
    hidden, mlp, vocabulary = (
        config["hidden_size"],
        config["intermediate_size"],
        config["vocab_size"],
    )
    kv = config["num_key_value_heads"] * hidden // config["num_attention_heads"]
    shapes: dict[str, tuple[int, ...]] = {
        tower + "embeddings.patch_embedding.weight": (width, 3, patch, patch),
        tower + "embeddings.patch_embedding.bias": (width,),
        tower + "post_layernorm.weight": (width,),
        tower + "post_layernorm.bias": (width,),
        "model.mm_projector.readout.0.weight": (hidden, width),
        "model.mm_projector.readout.0.bias": (hidden,),
        "model.mm_projector.readout.2.weight": (hidden, hidden),
        "model.mm_projector.readout.2.bias": (hidden,),
        "model.embed_tokens.weight": (vocabulary, hidden),
        "model.norm.weight": (hidden,),
    }
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (vocabulary, hidden)
    for layer in range(vision["num_hidden_layers"]):
        at = f"{tower}encoder.layers.{layer}."
        shapes |= {
            f"{at}layer_norm{n}.{leaf}": (width,) for n in (1, 2) for leaf in ("weight", "bias")
        }
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= {
                f"{at}self_attn.{part}.weight": (width, width),
                f"{at}self_attn.{part}.bias": (width,),
            }
        shapes |= {at + "mlp.fc1.weight": (inner, width), at + "mlp.fc1.bias": (inner,)}
        shapes |= {at + "mlp.fc2.weight": (width, inner), at + "mlp.fc2.bias": (width,)}
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        shapes |= {
            f"{at}{norm}.weight": (hidden,)
            for norm in ("input_layernorm", "post_attention_layernorm")
        }
        for part, rows in (("q_proj", hidden), ("k_proj", kv), ("v_proj", kv)):
            shapes |= {
                f"{at}self_attn.{part}.weight": (rows, hidden),
                f"{at}self_attn.{part}.bias": (rows,),
            }
        shapes |= {
            at + "self_attn.o_proj.weight": (hidden, hidden),
            at + "mlp.down_proj.weight": (hidden, mlp),
        }
        shapes |= {f"{at}mlp.{part}_proj.weight": (mlp, hidden) for part in ("gate", "up")}
    return shapes


def released_weights(config: Mapping[str, Any], seed: int = 0) -> dict[str, Tensor]:
    """Random values, large enough that every tensor moves the logits; the same in both layouts."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator) * (0.3 if len(shape) > 1 else 0.1)
        + (1.0 if "norm" in name and name.endswith("weight") else 0.0)
        for name, shape in released_shapes(config).items()
    }


def write_tiny_videollama3(folder: Path, config: Mapping[str, Any] | None = None) -> Path:
    """A complete folder; for a config in the local layout, the tower's folder beside it as well."""
    config = tiny_videollama3_config() if config is None else config
    tower = folder if "vision_encoder_config" in config else folder.parent / TOWER
    for each in (folder, tower):
        each.mkdir(parents=True, exist_ok=True)
    preprocessor = {
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.25, 0.3, 0.35],
        "rescale_factor": 0.00392156862745098,
        "resample": 3,
        "patch_size": 7,
        "merge_size": 1,
        "min_tokens": 4,
        "max_tokens": 96,
    }
    tokens = {
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "tokenizer_class": "Qwen2Tokenizer",
    }
    _write(folder / "config.json", config)
    _write(folder / "tokenizer_config.json", tokens)
    _write(tower / "preprocessor_config.json", preprocessor)
    if tower != folder:
        _write(tower / "config.json", tiny_vision_config())
    qwen2_tokenizer().save(str(folder / "tokenizer.json"))
    save_file(released_weights(config), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _write(file: Path, content: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(content), encoding="utf-8")


def chat_question(
    stem: str = "Where does the ball go?",
    options: tuple[str, ...] = ("to the left", "to the right."),
    target: int | str = 0,
    prompt: Prompt = PROMPT,
    clip: Clip | None = None,
) -> Question:
    """A question of no benchmark; one option ends as a sentence, one does not."""
    return Question(
        question_id="tiny-1",
        video_id="tiny",
        task="tiny",
        clip=clip or Clip("tiny.mp4"),
        stem=stem,
        options=options,
        target=target,
        protocol="paper",
        prompts={"chat": prompt},
    )

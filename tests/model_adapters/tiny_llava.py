"""A LLaVA-Video checkpoint folder small enough for a unit test: random weights, a Llama-style
tokenizer, all files.

For clones without the golden numbers, and for variants that those do not have. The tokenizer works
as Llama's does (a dummy space in front, byte fallback, newline as a byte) over single characters
and a few words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
from torch import Tensor

from mapflow.model_adapters.families.llava.network import LlavaNetwork
from mapflow.results.contract.question import Clip, Prompt, Question

WORDS = (
    "▁USER",
    "▁ASSISTANT",
    "▁Question",
    "▁the",
    "▁ball",
    "▁left",
    "▁right",
    ":(",
    "?",
    "O",
    "ptions",
    "Best",
)
SPECIAL = ("<unk>", "<s>", "</s>")
PLACEHOLDER = "<image>"


def tiny_tokenizer(words: Sequence[str] = WORDS) -> Tokenizer:
    """Single characters, bytes, and `words`, which are merged from left to right."""
    characters = ["▁", *(chr(code) for code in range(33, 127))]
    tokens = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *characters]
    merges = []
    for word in words:
        for end in range(2, len(word) + 1):
            if word[:end] not in tokens:
                tokens.append(word[:end])
                merges.append((word[: end - 1], word[end - 1]))
    model = models.BPE(
        {token: index for index, token in enumerate(tokens)},
        merges,
        unk_token="<unk>",
        fuse_unk=True,
        byte_fallback=True,
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens(
        [AddedToken(token, normalized=False) for token in (*SPECIAL, PLACEHOLDER)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return tokenizer


def tiny_config(
    *,
    frames: int = 4,
    tokens: tuple[int, int] = (2, 2),
    image: int = 28,
    patch: int = 7,
    heads: int = 4,
    kv_heads: int = 4,
    layers: int = 4,
    tied: bool = False,
) -> dict[str, Any]:
    """A config.json as the released ones are written: what equals transformers' defaults is left
    out."""
    return {
        "architectures": ["PllavaForConditionalGeneration"],
        "model_type": "llava",
        "image_token_index": tiny_tokenizer().token_to_id(PLACEHOLDER),
        "pooling_shape": [frames, *tokens],
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "torch_dtype": "float32",
        "text_config": {
            "model_type": "llama",
            "vocab_size": tiny_tokenizer().get_vocab_size(),
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": tied,
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "image_size": image,
            "patch_size": patch,
        },
    }


def tiny_weights(config: Mapping[str, Any], seed: int = 0) -> dict[str, Tensor]:
    """Random weights under the released checkpoints' names, large enough that every part moves the
    logits."""
    generator = torch.Generator().manual_seed(seed)
    network = LlavaNetwork.from_config_dict(config)
    ((old, new),) = LlavaNetwork.renames
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return {
        (old + name.removeprefix(new) if name.startswith(new) else name): (
            torch.randn(parameter.shape, generator=generator) * (0.3 if parameter.ndim > 1 else 0.1)
            + (1.0 if "norm" in name and name.endswith("weight") else 0.0)
        )
        for parameter in network.parameters()
        for name in [names[id(parameter)]]
    }


def write_tiny_llava(
    folder: Path,
    config: Mapping[str, Any] | None = None,
    weights: Mapping[str, Tensor] | None = None,
    shards: int = 1,
    seed: int = 0,
) -> Path:
    """A complete folder; with `shards` > 1 the weights are spread over that many files and an
    index."""
    folder.mkdir(parents=True, exist_ok=True)
    config = tiny_config() if config is None else config
    size = config["vision_config"]["image_size"]
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    tokens = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "tokenizer_class": "LlamaTokenizer",
    }
    preprocessor = {
        "size": {"shortest_edge": size},
        "crop_size": {"height": size, "width": size},
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "rescale_factor": 0.00392156862745098,
        "resample": 3,
    }
    for name, content in {
        "config.json": config,
        "tokenizer_config.json": tokens,
        "preprocessor_config.json": preprocessor,
    }.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    write_weights(folder, tiny_weights(config, seed) if weights is None else weights, shards)
    return folder


def write_weights(folder: Path, weights: Mapping[str, Tensor], shards: int = 1) -> None:
    """One file, or several with an index, in save_pretrained's layout."""
    if shards == 1:
        save_file(dict(weights), folder / "model.safetensors", metadata={"format": "pt"})
        return
    names = sorted(weights)
    index = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        part = names[shard::shards]
        save_file({name: weights[name] for name in part}, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(part, file)
    content = {"metadata": {}, "weight_map": index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content), encoding="utf-8")


PROMPT = Prompt(
    system="Watch the ball.\n",
    stem_label="Question: ",
    options_label="\nOptions:\n",
    option="({letter}) {text}",
    option_separator="\n",
    instruction=" \nOnly give the best option.",
    answer_prefix="Best option:(",
)


def tiny_question(
    stem: str = "Where does the ball go?",
    options: Sequence[str] = ("the left", "the right"),
    target: int | str = 0,
    prompt: Prompt = PROMPT,
    clip: Clip | None = None,
) -> Question:
    """A question of no benchmark."""
    return Question(
        question_id="tiny-1",
        video_id="tiny",
        task="tiny",
        clip=clip or Clip("tiny.mp4"),
        stem=stem,
        options=tuple(options),
        target=target,
        protocol="paper",
        prompts={"completion": prompt},
    )

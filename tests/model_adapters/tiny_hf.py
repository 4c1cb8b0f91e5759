"""Checkpoint folders of transformers' video models, small enough for a unit test: random weights,
own tokenizer.

Each family is built from its own config, model and processor classes and saved by
`save_pretrained`, so a folder has exactly the files and the names that a downloaded one has. The
tokenizer is a byte-level BPE trained on the spot; it merges across words' parts but never looks at
the questions of the tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

CORPUS = (
    "Question: Which way does the red ball move? Options: (A) to the left (B) to the right",
    "Answer with the option's letter from the given choices directly and only give the best"
    " option.",
    *(f" {letter} {letter} {letter} {letter}" for letter in "ABCDEFG"),
    "You are a helpful assistant. user assistant system Time 0.0s: <0.3 seconds> Frame1: the"
    " video series",
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% for c in m['content'] %}{% if c['type'] == 'video' %}VIDEO{% else %}{{ c['text'] }}{%"
    " endif %}{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VICUNA = (
    "{% for m in messages %}{{ m['role'].upper() }}: "
    "{% for c in m['content'] %}{% if c['type'] == 'video' %}<video>\n{% else %}{{ c['text'] |"
    " trim }}{% endif %}"
    "{% endfor %} {% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
QWEN_VIDEO = "<|vision_start|><|video_pad|><|vision_end|>"
MERGED = {"patch_size": 4, "merge_size": 2, "size": {"shortest_edge": 64, "longest_edge": 2048}}
FRAME = {"height": 16, "width": 16}


def tokenizer(specials: tuple[str, ...], named: Mapping[str, str] | None = None) -> Any:
    """A fast byte-level BPE tokenizer with chat tokens and `specials`; `named` are attributes such
    as image_token."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    chat = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *specials]
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=chat,
        show_progress=False,
    )
    bpe.train_from_iterator(CORPUS, trainer)
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(specials),
        extra_special_tokens=dict(named or {}),
    )


def text_config(config_class: type, vocabulary: int, layers: int, **changes: Any) -> Any:
    sizes = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "bos_token_id": None,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    return config_class(**{**sizes, **changes})


def clip_config(patch: int = 4, **changes: Any) -> Any:
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": patch,
    }
    return {**sizes, **changes}


QWEN = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}


def _ids(tok: Any, **names: str) -> dict[str, int]:
    return {name: tok.convert_tokens_to_ids(token) for name, token in names.items()}


def _qwen_ids(tok: Any) -> dict[str, int]:
    names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
    return _ids(tok, **dict(zip(names, QWEN, strict=True)))


def qwen2_5_vl(layers: int) -> tuple[Any, Any]:
    tok = tokenizer(QWEN)
    vision = {
        "depth": 2, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "patch_size": 4,
        "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 16, "out_hidden_size": 32,
        "fullatt_block_indexes": [1], "tokens_per_second": 2,
    }  # fmt: skip
    text = text_config(hf.Qwen2_5_VLTextConfig, len(tok), layers, rope_parameters=MROPE)
    config = hf.Qwen2_5_VLConfig(
        text_config=text.to_dict(),
        vision_config=vision,
        **_qwen_ids(tok),
        tie_word_embeddings=False,
    )
    processor = hf.Qwen2_5_VLProcessor(
        hf.Qwen2VLImageProcessor(**MERGED, temporal_patch_size=2),
        tok,
        hf.Qwen2VLVideoProcessor(**MERGED, temporal_patch_size=2),
        chat_template=CHATML.replace("VIDEO", QWEN_VIDEO),
    )
    return hf.Qwen2_5_VLForConditionalGeneration(config), processor


def qwen3_vl(layers: int) -> tuple[Any, Any]:
    tok = tokenizer(QWEN)
    vision = {
        "depth": 3, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "patch_size": 4,
        "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 32,
        "num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1],
    }  # fmt: skip
    text = text_config(hf.Qwen3VLTextConfig, len(tok), layers, head_dim=8, rope_parameters=MROPE)
    config = hf.Qwen3VLConfig(
        text_config=text.to_dict(),
        vision_config=vision,
        **_qwen_ids(tok),
        tie_word_embeddings=False,
    )
    processor = hf.Qwen3VLProcessor(
        hf.Qwen2VLImageProcessor(**MERGED, temporal_patch_size=2),
        tok,
        hf.Qwen3VLVideoProcessor(**MERGED, temporal_patch_size=2),
        chat_template=CHATML.replace("VIDEO", QWEN_VIDEO),
    )
    return hf.Qwen3VLForConditionalGeneration(config), processor


def llava_next_video(layers: int) -> tuple[Any, Any]:
    tok = tokenizer(("<image>", "<video>"))
    size = {"shortest_edge": 16}
    config = hf.LlavaNextVideoConfig(
        text_config=text_config(hf.LlamaConfig, len(tok), layers).to_dict(),
        vision_config={"model_type": "clip_vision_model", **clip_config()},
        image_grid_pinpoints=[[16, 16]],
        **_ids(tok, image_token_index="<image>", video_token_index="<video>"),
    )
    processor = hf.LlavaNextVideoProcessor(
        video_processor=hf.LlavaNextVideoVideoProcessor(size=size, crop_size=FRAME),
        image_processor=hf.LlavaNextImageProcessor(
            size=size, crop_size=FRAME, image_grid_pinpoints=[[16, 16]]
        ),
        tokenizer=tok,
        chat_template=VICUNA,
        patch_size=4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    return hf.LlavaNextVideoForConditionalGeneration(config), processor


def llava_onevision(layers: int) -> tuple[Any, Any]:
    tok = tokenizer(("<image>", "<video>"))
    config = hf.LlavaOnevisionConfig(
        text_config=text_config(hf.Qwen2Config, len(tok), layers).to_dict(),
        vision_config={"model_type": "siglip_vision_model", **clip_config(vision_use_head=False)},
        image_grid_pinpoints=[[16, 16]],
        **_ids(tok, image_token_index="<image>", video_token_index="<video>"),
    )
    processor = hf.LlavaOnevisionProcessor(
        hf.LlavaOnevisionImageProcessor(size=FRAME, image_grid_pinpoints=[[16, 16]]),
        tok,
        hf.LlavaOnevisionVideoProcessor(size=FRAME),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=CHATML.replace("VIDEO", "<video>\n"),
    )
    return hf.LlavaOnevisionForConditionalGeneration(config), processor


def internvl(layers: int) -> tuple[Any, Any]:
    named = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tok = tokenizer(tuple(named.values()), named)
    vision = {
        "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 2, "image_size": [16, 16], "patch_size": [4, 4],
    }  # fmt: skip
    config = hf.InternVLConfig(
        text_config=text_config(hf.Qwen2Config, len(tok), layers).to_dict(),
        vision_config=vision,
        image_seq_length=4,
        tie_word_embeddings=False,
        **_ids(tok, image_token_id="<IMG_CONTEXT>"),
    )
    processor = hf.InternVLProcessor(
        hf.GotOcr2ImageProcessor(size=FRAME),
        tok,
        hf.InternVLVideoProcessor(size=FRAME),
        image_seq_length=4,
        chat_template=CHATML.replace("VIDEO", "<video>\n"),
    )
    return hf.InternVLForConditionalGeneration(config), processor


def video_llama_3(layers: int) -> tuple[Any, Any]:
    tok = tokenizer(QWEN)
    vision = {
        "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 2, "patch_size": 4,
    }  # fmt: skip
    config = hf.VideoLlama3Config(
        text_config=text_config(hf.Qwen2Config, len(tok), layers).to_dict(),
        vision_config=vision,
        tie_word_embeddings=False,
        **_ids(tok, image_token_id="<|image_pad|>", video_token_id="<|video_pad|>"),
    )
    processor = hf.VideoLlama3Processor(
        hf.VideoLlama3ImageProcessor(**MERGED),
        tok,
        hf.VideoLlama3VideoProcessor(**MERGED, temporal_patch_size=1),
        chat_template=CHATML.replace("VIDEO", "<|video_pad|>\n"),
    )
    return hf.VideoLlama3ForConditionalGeneration(config), processor


def smolvlm(layers: int) -> tuple[Any, Any]:
    named = {
        "fake_image_token": "<fake_token_around_image>",
        "image_token": "<image>",
        "global_image_token": "<global-img>",
        "end_of_utterance_token": "<end_of_utterance>",
        "video_token": "<video>",
    }
    tok = tokenizer(tuple(named.values()), named)
    config = hf.SmolVLMConfig(
        text_config=text_config(hf.LlamaConfig, len(tok), layers).to_dict(),
        vision_config=clip_config(),
        scale_factor=2,
        tie_word_embeddings=False,
        **_ids(tok, image_token_id="<image>"),
    )
    sizes = {"size": {"longest_edge": 16}, "max_image_size": {"longest_edge": 16}}
    processor = hf.SmolVLMProcessor(
        hf.SmolVLMImageProcessor(**sizes),
        tok,
        hf.SmolVLMVideoProcessor(**sizes),
        image_seq_len=4,
        chat_template=CHATML.replace("VIDEO", "<video>"),
    )
    return hf.SmolVLMForConditionalGeneration(config), processor


FAMILIES: dict[str, Callable[[int], tuple[Any, Any]]] = {
    build.__name__: build
    for build in (
        qwen2_5_vl, qwen3_vl, llava_next_video, llava_onevision, internvl, video_llama_3, smolvlm,
    )
}  # fmt: skip


BUILDERS = dict(FAMILIES)
"""What `write_tiny_hf` can write: the families above, and what other test modules add."""


def write_tiny_hf(folder: Path, family: str, layers: int = 4, seed: int = 0) -> Path:
    """A complete folder, with weights large enough that every part moves the logits."""
    model, processor = BUILDERS[family](layers)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        scale = 0.25 if parameter.ndim > 1 else 0.1
        values = torch.randn(parameter.shape, generator=generator) * scale
        parameter.data.copy_(values + (1 if "norm" in name and name.endswith("weight") else 0))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder

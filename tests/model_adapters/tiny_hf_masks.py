"""Tiny checkpoints of models that hand their decoder a mask or arguments of their own.

Gemma 4: frames attend to themselves in both directions in sliding layers; per-layer embeddings; two
layers reuse the keys of others. Molmo 2: all video tokens attend to each other in both directions.
Ernie 4.5 VL: experts by token type.
"""

from __future__ import annotations

from typing import Any

import transformers as hf
from tiny_hf import BUILDERS, CHATML, _ids, text_config, tokenizer

SQUARE = {"height": 16, "width": 16}


def gemma4(layers: int, **changes: Any) -> tuple[Any, Any]:
    """`changes` are settings of the text model."""
    named = {
        "image_token": "<image_soft_token>",
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "audio_token": "<audio_soft_token>",
        "boa_token": "<start_of_audio>",
        "eoa_token": "<end_of_audio>",
    }
    tok = tokenizer((*named.values(), "<|video|>"), named)
    settings = {
        "head_dim": 8, "global_head_dim": 8, "sliding_window": 24,
        "layer_types": ["sliding_attention", "full_attention"] * (layers // 2),
        "use_bidirectional_attention": "vision", "hidden_size_per_layer_input": 0,
        "vocab_size_per_layer_input": len(tok), "final_logit_softcapping": 30.0,
    }  # fmt: skip
    text = text_config(hf.Gemma4TextConfig, len(tok), layers, **{**settings, **changes})
    vision = {
        "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "head_dim": 8,
        "num_attention_heads": 2, "num_key_value_heads": 2, "patch_size": 4,
        "pooling_kernel_size": 2, "position_embedding_size": 64,
    }  # fmt: skip
    ids = {
        f"{name}_id": tok.convert_tokens_to_ids(token)
        for name, token in {**named, "video_token": "<|video|>"}.items()
        if name != "eoa_token"
    }
    config = hf.Gemma4Config(
        text_config=text.to_dict(), vision_config=vision, audio_config=None, **ids
    )
    patches = {"patch_size": 4, "pooling_kernel_size": 2, "max_soft_tokens": 70}
    processor = hf.Gemma4Processor(
        hf.Gemma4AudioFeatureExtractor(),
        hf.Gemma4ImageProcessor(**patches),
        tok,
        hf.Gemma4VideoProcessor(**{**patches, "max_soft_tokens": 70}),
        chat_template=CHATML.replace("VIDEO", "<|video|>\n"),
    )
    return hf.Gemma4ForConditionalGeneration(config), processor


def gemma4_small(layers: int) -> tuple[Any, Any]:
    """As Gemma 4's small models: per-layer embeddings, and layers that reuse keys of others."""
    return gemma4(layers, num_kv_shared_layers=2, hidden_size_per_layer_input=4)


def molmo2(layers: int) -> tuple[Any, Any]:
    names = (
        "<im_patch>", "<im_col>", "<im_start>", "<low_res_im_start>", "<frame_start>", "<im_end>",
        "<frame_end>", "<im_low>", "<|image|>", "<|video|>",
    )  # fmt: skip
    tok = tokenizer(names)
    text = text_config(
        hf.Molmo2TextConfig, len(tok), layers, head_dim=8, additional_vocab_size=8,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )  # fmt: skip
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8}
    config = hf.Molmo2Config(
        text_config=text.to_dict(),
        vision_config={
            "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "patch_size": 4,
            "image_size": [16, 16], "num_position_embeddings": 16, **heads,
        },
        adapter_config={
            "vision_feature_layer": [-1, -2], "hidden_size": 16, "intermediate_size": 24,
            "text_hidden_size": 32, **heads,
        },
        **_ids(
            tok, image_start_token_id="<im_start>", image_patch_id="<im_patch>",
            low_res_image_start_token_id="<low_res_im_start>", image_end_token_id="<im_end>",
            frame_start_token_id="<frame_start>", frame_end_token_id="<frame_end>",
        ),
    )  # fmt: skip
    sizes = {"size": SQUARE, "patch_size": 4, "pooling_size": [2, 2]}
    processor = hf.Molmo2Processor(
        hf.Molmo2ImageProcessor(**sizes),
        hf.Molmo2VideoProcessor(**sizes),
        tok,
        chat_template=CHATML.replace("VIDEO", "<|video|>"),
    )
    return hf.Molmo2ForConditionalGeneration(config), processor


def ernie4_5_vl(layers: int) -> tuple[Any, Any]:
    named = {
        "image_token": "<|IMAGE_PLACEHOLDER|>",
        "image_start_token": "<|IMAGE_START|>",
        "image_end_token": "<|IMAGE_END|>",
        "video_token": "<|VIDEO_PLACEHOLDER|>",
        "video_start_token": "<|VIDEO_START|>",
        "video_end_token": "<|VIDEO_END|>",
    }
    tok = tokenizer(tuple(named.values()), named)
    text = text_config(
        hf.Ernie4_5_VLMoeTextConfig, len(tok), layers, head_dim=8, moe_intermediate_size=[24, 16],
        moe_k=2, moe_num_experts=4, moe_num_shared_experts=1,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]},
        mlp_layer_types=["dense", *["sparse"] * (layers - 1)],
    )  # fmt: skip
    config = hf.Ernie4_5_VLMoeConfig(
        text_config=text.to_dict(),
        vision_config={
            "depth": 2, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "patch_size": 4,
        },
        **{f"{name}_id": tok.convert_tokens_to_ids(token) for name, token in named.items()},
        tie_word_embeddings=False,
    )  # fmt: skip
    sizes = {"patch_size": 4, "merge_size": 2, "size": {"shortest_edge": 64, "longest_edge": 2048}}
    processor = hf.Ernie4_5_VLMoeProcessor(
        hf.Ernie4_5_VLMoeImageProcessor(**sizes),
        tok,
        hf.Ernie4_5_VLMoeVideoProcessor(**sizes, draw_on_frames=False),
        chat_template=CHATML.replace("VIDEO", "<|VIDEO_START|><|VIDEO_PLACEHOLDER|><|VIDEO_END|>"),
    )
    return hf.Ernie4_5_VLMoeForConditionalGeneration(config), processor


OWN = {build.__name__: build for build in (gemma4, gemma4_small, molmo2, ernie4_5_vl)}
BUILDERS.update(OWN)  # for `write_tiny_hf`

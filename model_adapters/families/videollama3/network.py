"""The VideoLLaMA3 network: a vision tower for frames of any size, a projector, and Qwen2.

Tower and decoder are transformers' own classes; the tower averages each `merge` × `merge` square of
patches into one video token. The paper's analysis uses another attention in the tower than the
model's training; `VisionAttention` selects one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, Qwen2Config
from transformers.models.video_llama_3.configuration_video_llama_3 import VideoLlama3VisionConfig
from transformers.models.video_llama_3.modeling_video_llama_3 import VideoLlama3VisionModel

from mapflow.model_adapters.checkpoints.released import settings
from mapflow.results.contract.errors import MapflowError

VisionAttention = Literal["released", "isolated"]
"""`released`: as in the paper's analysis, whose eager code *adds* its boolean mask to the scores;
every patch attends to every frame, and scores within its own frame are greater by 1. `isolated`:
patches attend to their own frame only, as in training (flash-attention and sdpa code)."""


class Projector(nn.Module):
    """From the tower's width to the decoder's: `depth` linear layers with GELU between them."""

    def __init__(self, vision_width: int, width: int, depth: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Linear(vision_width, width)]
        for _ in range(depth - 1):
            layers += [nn.GELU(), nn.Linear(width, width)]
        self.readout = nn.Sequential(*layers)

    def forward(
        self, features: Float[Tensor, "*shape vision_width"]
    ) -> Float[Tensor, "*shape width"]:
        return self.readout(features)


class MixingAttention(nn.Module):
    """The `released` attention (see `VisionAttention`), on the projections of `native`."""

    def __init__(self, native: nn.Module) -> None:
        super().__init__()
        self.q_proj, self.k_proj = native.get_submodule("q_proj"), native.get_submodule("k_proj")
        self.v_proj, self.out_proj = (
            native.get_submodule("v_proj"),
            native.get_submodule("out_proj"),
        )
        self.head_dim = int(native.head_dim)  # pyright: ignore[reportArgumentType]

    def forward(
        self,
        hidden_states: Float[Tensor, "patches width"],
        cu_seqlens: Int[Tensor, " frame_ends"],
        position_embeddings: tuple[
            Float[Tensor, "patches head_dim"], Float[Tensor, "patches head_dim"]
        ],
        **options: Any,
    ) -> tuple[Float[Tensor, "patches width"], None]:
        """`cu_seqlens`: frame boundaries in patches; `position_embeddings`: cosines and sines."""
        cos, sin = (table[:, None].float() for table in position_embeddings)
        heads = [
            project(hidden_states).unflatten(-1, (-1, self.head_dim))
            for project in (self.q_proj, self.k_proj, self.v_proj)
        ]
        heads[:2] = [(x.float() * cos + _half_turn(x.float()) * sin).to(x.dtype) for x in heads[:2]]
        patches = torch.arange(len(hidden_states), device=hidden_states.device)
        frame = torch.bucketize(patches, cu_seqlens.to(patches.device), right=True)
        bonus = (frame[:, None] == frame).to(hidden_states.dtype)
        mixed = nn.functional.scaled_dot_product_attention(
            *(x.transpose(0, 1)[None] for x in heads), attn_mask=bonus
        )
        return self.out_proj(mixed[0].transpose(0, 1).flatten(1)), None


class VideoLlama3Network(nn.Module):
    """Tower, projector and language model of one `config.json` (authors' layout).

    Args:
        vision_config: the tower.
        text_config: Qwen2.
        projector_depth: linear layers of the projector.
        merge: side, in patches, of the square that becomes one video token.
        vision_attention: see `VisionAttention`.
    """

    renames = (
        (
            "model.vision_encoder.vision_encoder.",
            "vision_model.",
        ),  # as the paper's local class saves it
        ("model.vision_encoder.", "vision_model."),  # as on the hub
        ("model.mm_projector.", "projector."),
        ("model.", "language_model.model."),
        ("lm_head.", "language_model.lm_head."),
    )
    """Pairs (prefix in a checkpoint, prefix here)."""

    def __init__(
        self,
        vision_config: VideoLlama3VisionConfig,
        text_config: Qwen2Config,
        projector_depth: int = 2,
        merge: int = 2,
        vision_attention: VisionAttention = "released",
    ) -> None:
        super().__init__()
        self.vision_model = VideoLlama3VisionModel(vision_config)
        if vision_attention == "released":
            for layer in self.vision_model.encoder.layers:
                layer.self_attn = MixingAttention(layer.get_submodule("self_attn"))
        self.projector = Projector(
            vision_config.hidden_size, text_config.hidden_size, projector_depth
        )
        self.language_model = AutoModelForCausalLM.from_config(
            text_config, dtype=torch.get_default_dtype()
        )
        self.merge = merge

    @classmethod
    def from_config_dict(
        cls,
        config: Mapping[str, Any],
        vision_config: Mapping[str, Any],
        merge: int = 2,
        vision_attention: VisionAttention = "released",
    ) -> VideoLlama3Network:
        """From the contents of an authors' `config.json` and of its vision tower's.

        Works under `torch.device("meta")`. Raises MapflowError for variants that are not supported.
        """
        projector = config.get("mm_projector_type", "linear")
        depth = re.fullmatch(r"mlp([1-9])x_gelu", projector)
        if not depth:
            raise MapflowError(
                f"config.json has mm_projector_type = {projector!r}; mlp2x_gelu is supported"
            )
        # The file holds Qwen2's config and other settings.
        known = {*Qwen2Config().to_dict(), "rope_theta", "rope_scaling"}
        text = {key: value for key, value in settings(config).items() if key in known}
        return cls(
            VideoLlama3VisionConfig(**settings(vision_config)),
            Qwen2Config(**text),
            int(depth[1]),
            merge,
            vision_attention,
        )

    def vision_features(
        self, pixel_values: Float[Tensor, "patches values"], grid: tuple[int, int, int]
    ) -> Float[Tensor, "video_tokens vision_width"]:
        """The tower's output for one clip, whose patches are `grid` = (frames, rows, columns)."""
        device = pixel_values.device
        return self.vision_model(
            pixel_values=pixel_values,
            grid_thw=torch.tensor([grid], device=device),
            merge_sizes=torch.tensor([self.merge], device=device),
        ).last_hidden_state

    def encode_video(
        self, pixel_values: Float[Tensor, "patches values"], grid: tuple[int, int, int]
    ) -> Float[Tensor, "video_tokens hidden"]:
        """Video tokens of one clip, frame by frame, row by row."""
        return self.projector(self.vision_features(pixel_values, grid))


def _half_turn(x: Float[Tensor, "*shape head_dim"]) -> Float[Tensor, "*shape head_dim"]:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)

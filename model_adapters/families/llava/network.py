"""The LLaVA-Video network: CLIP tower, projector with pooling over time and space, Llama.

A clip's frames become `frames × rows × columns` video tokens (`pooling_shape`), frame by frame, row
by row. Modules have the names of the authors' checkpoints except for one prefix
(`LlavaNetwork.renames`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, CLIPVisionConfig, CLIPVisionModel
from transformers.activations import ACT2FN

from mapflow.model_adapters.checkpoints.released import settings, text_config
from mapflow.results.contract.errors import MapflowError


class Projector(nn.Module):
    """Two linear layers to the decoder's width, then average pooling to `pooling_shape`."""

    def __init__(
        self, vision_width: int, width: int, act: str, pooling_shape: tuple[int, int, int]
    ) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(vision_width, width)
        self.act = ACT2FN[act]
        self.linear_2 = nn.Linear(width, width)
        self.pooling_shape = pooling_shape

    def forward(
        self, patches: Float[Tensor, "clips frames rows columns vision_width"]
    ) -> Float[Tensor, "clips video_tokens width"]:
        projected = self.linear_2(self.act(self.linear_1(patches)))
        # Means over many bfloat16 values are taken in float32, or they lose digits.
        channels_first = projected.float().movedim(-1, 1)
        pooled = nn.functional.adaptive_avg_pool3d(channels_first, self.pooling_shape)
        return pooled.flatten(2).transpose(1, 2).to(projected.dtype)


class LlavaNetwork(nn.Module):
    """Vision tower, projector and language model of one `config.json` (PLLaVA layout).

    Args:
        vision_config: the CLIP tower.
        text_config: the decoder, any causal language model that transformers knows.
        pooling_shape: (frames, rows, columns) of video tokens.
        projector_act: activation between the projector's two layers.
        vision_feature_layer: index of the hidden states to project: 0 the embeddings, -1 the last.
    """

    renames = (("vision_tower.vision_model.", "vision_tower."),)
    """Pairs (prefix in a checkpoint, prefix here); all other names agree."""

    def __init__(
        self,
        vision_config: CLIPVisionConfig,
        text_config: Any,
        pooling_shape: tuple[int, int, int],
        projector_act: str = "gelu",
        vision_feature_layer: int = -2,
    ) -> None:
        super().__init__()
        tower = CLIPVisionModel(vision_config)
        # Some versions of transformers wrap the tower once more. Parameter names here do not depend
        # on it.
        self.vision_tower = getattr(tower, "vision_model", tower)
        self.multi_modal_projector = Projector(
            vision_config.hidden_size, text_config.hidden_size, projector_act, pooling_shape
        )
        self.language_model = AutoModelForCausalLM.from_config(
            text_config, dtype=torch.get_default_dtype()
        )
        self.pooling_shape = pooling_shape
        depth = vision_config.num_hidden_layers
        self.n_vision_layers = vision_feature_layer + (depth + 1 if vision_feature_layer < 0 else 0)
        if not 0 <= self.n_vision_layers <= depth:
            raise MapflowError(
                f"vision_feature_layer {vision_feature_layer} is not among the {depth} layers"
            )

    @classmethod
    def from_config_dict(cls, config: Mapping[str, Any]) -> LlavaNetwork:
        """From the contents of an authors' `config.json`, which omits every default.

        Works under `torch.device("meta")`. Raises MapflowError for variants that are not supported.
        """
        supported = {
            "vision_feature_select_strategy": "default",
            "pooling_method": "avg",
            "use_pooling": True,
        }
        for key, value in supported.items():
            if config.get(key, value) != value:
                raise MapflowError(
                    f"config.json has {key} = {config[key]!r}; only {value!r} is supported"
                )
        if not isinstance(config.get("vision_feature_layer", -2), int):
            raise MapflowError(
                f"config.json has vision_feature_layer = {config['vision_feature_layer']!r}; one"
                " number is supported"
            )
        if len(config.get("pooling_shape") or ()) != 3:
            raise MapflowError(
                "config.json has no pooling_shape [frames, rows, columns]: not a LLaVA-Video model"
            )
        frames, rows, columns = config["pooling_shape"]
        return cls(
            vision_config=CLIPVisionConfig(**settings(config.get("vision_config", {}))),
            text_config=text_config(config.get("text_config", {}), "llama"),
            pooling_shape=(frames, rows, columns),
            projector_act=config.get("projector_hidden_act", "gelu"),
            vision_feature_layer=config.get("vision_feature_layer", -2),
        )

    @property
    def n_frames(self) -> int:
        """Frames of video tokens after pooling."""
        return self.pooling_shape[0]

    def vision_features(
        self, pixel_values: Float[Tensor, "images 3 height width"]
    ) -> Float[Tensor, "images patches vision_width"]:
        """Patch features without CLS after `n_vision_layers`; later layers are not run."""
        hidden = self.vision_tower.pre_layrnorm(self.vision_tower.embeddings(pixel_values))
        for layer in self.vision_tower.encoder.layers[: self.n_vision_layers]:
            hidden = layer(hidden, attention_mask=None)
        return hidden[:, 1:]

    def encode_video(
        self, pixel_values: Float[Tensor, "clips frames 3 height width"]
    ) -> Float[Tensor, "clips video_tokens hidden"]:
        """Video tokens of every clip, frame by frame, row by row."""
        patches = self.vision_features(pixel_values.flatten(0, 1))
        rows, columns = self.vision_tower.embeddings.patch_embedding.stride
        grid = (pixel_values.shape[-2] // rows, pixel_values.shape[-1] // columns)
        return self.multi_modal_projector(
            patches.unflatten(1, grid).unflatten(0, pixel_values.shape[:2])
        )

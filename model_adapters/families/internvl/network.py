"""The InternVL network: InternViT tower, pixel shuffle, two-layer projector, causal language model.

Every frame becomes (side · downsample_ratio)² video tokens: squares of neighbouring patches are
concatenated to one wider vector (pixel shuffle, version 2) and projected to the decoder's width.
Tower and decoder are transformers' own classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, InternVLVisionConfig, InternVLVisionModel

from mapflow.model_adapters.checkpoints.released import text_config
from mapflow.results.contract.errors import MapflowError

# Authors' name → transformers' name of a setting of the tower.
TOWER_SETTINGS = {"qkv_bias": "attention_bias", "qk_normalization": "use_qk_norm"}
TOWER_SHARED = (
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_channels",
    "image_size",
    "patch_size",
    "hidden_act",
    "norm_type",
    "layer_norm_eps",
)


class InternVLNetwork(nn.Module):
    """Tower, projector and language model of one `config.json` (InternVLChat layout).

    Args:
        vision_config: the tower, with only the layers that are run.
        text_config: the decoder, any causal language model that transformers knows.
        merge: side, in patches, of the square that becomes one video token.
        n_frames: frames to show if a protocol asks for no number.
    """

    def __init__(
        self, vision_config: InternVLVisionConfig, text_config: Any, merge: int, n_frames: int
    ) -> None:
        super().__init__()
        self.vision_model = InternVLVisionModel(vision_config)
        width, hidden = vision_config.hidden_size * merge**2, text_config.hidden_size
        self.mlp1 = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden)
        )
        self.language_model = AutoModelForCausalLM.from_config(
            text_config, dtype=torch.get_default_dtype()
        )
        self.merge, self.n_frames = merge, n_frames

    @classmethod
    def from_config_dict(cls, config: Mapping[str, Any]) -> InternVLNetwork:
        """From the contents of an authors' `config.json`.

        Works under `torch.device("meta")`. Raises MapflowError for variants that are not supported.
        """
        if config.get("ps_version", "v2") != "v2":
            raise MapflowError(
                f"config.json has ps_version = {config['ps_version']!r}; only 'v2' is supported"
            )
        n_layers = n_vision_layers(config)
        if not isinstance(config.get("llm_config"), Mapping):
            raise MapflowError("config.json has no llm_config: not an InternVL chat model")
        vision, ratio = config["vision_config"], config.get("downsample_ratio", 0.5)
        merge = round(1 / ratio)
        side = vision["image_size"] // vision["patch_size"]
        if ratio * merge != 1 or side % merge:
            raise MapflowError(
                f"config.json has downsample_ratio = {ratio}, which does not divide {side} ×"
                f" {side} patches"
            )
        return cls(
            InternVLVisionConfig(
                num_hidden_layers=n_layers,
                **{key: vision[key] for key in TOWER_SHARED if key in vision},
                **{new: vision[old] for old, new in TOWER_SETTINGS.items() if old in vision},
            ),
            _decoder_config(config["llm_config"]),
            merge,
            config.get("num_frames", 8),
        )

    @property
    def image_size(self) -> int:
        """Height and width of a frame, pixels."""
        height, _ = cast(tuple[int, int], self.vision_model.config.image_size)
        return height

    @property
    def patch_size(self) -> tuple[int, int]:
        """Height and width of a patch, pixels."""
        return cast(tuple[int, int], self.vision_model.config.patch_size)

    @property
    def tokens_per_frame(self) -> int:
        side = self.image_size // self.patch_size[0]
        return (side // self.merge) ** 2

    def vision_features(
        self, pixel_values: Float[Tensor, "images 3 height width"]
    ) -> Float[Tensor, "images tokens shuffled_width"]:
        """The projector's inputs: the tower's patches without CLS, after the pixel shuffle."""
        patches = self.vision_model(pixel_values=pixel_values).last_hidden_state[:, 1:]
        rows, columns = self.patch_size
        grid = (pixel_values.shape[-2] // rows, pixel_values.shape[-1] // columns)
        return pixel_shuffle(patches.unflatten(1, grid), self.merge).flatten(1, 2)

    def encode_video(
        self, pixel_values: Float[Tensor, "frames 3 height width"]
    ) -> Float[Tensor, "video_tokens hidden"]:
        """Video tokens of one clip, frame by frame, row by row."""
        return self.mlp1(self.vision_features(pixel_values)).flatten(0, 1)


def pixel_shuffle(
    patches: Float[Tensor, "images rows columns width"], merge: int
) -> Float[Tensor, "images merged_rows merged_columns merged_width"]:
    """Concatenates each `merge` × `merge` square of patches, row by row, to one vector."""
    squares = patches.unflatten(2, (-1, merge)).unflatten(1, (-1, merge)).transpose(2, 3)
    return squares.flatten(3)


def _decoder_config(config: Mapping[str, Any]) -> Any:
    """Phi-3 as the authors saved it: rotary scaling "su" is today's "longrope"."""
    config = dict(config)
    # The authors' code uses eager attention, which never applied the sliding window.
    config["sliding_window"] = None
    scaling = config.get("rope_scaling")
    if scaling and scaling.get("type") == "su":
        factors = {key: value for key, value in scaling.items() if key != "type"}
        original = config.get("original_max_position_embeddings", 4096)
        config["rope_scaling"] = {
            "rope_type": "longrope",
            "original_max_position_embeddings": original,
            "factor": config.get("max_position_embeddings", original) / original,
            **factors,
        }
    return text_config(config, "phi3")


def n_vision_layers(config: Mapping[str, Any]) -> int:
    """Number of tower layers to run.

    `select_layer` is an index of hidden states: 0 the embeddings, -1 the last layer's.

    Raises MapflowError for an index that the tower does not have.
    """
    depth = (config.get("vision_config") or {}).get("num_hidden_layers")
    if not isinstance(depth, int):
        raise MapflowError(
            "config.json has no vision_config with num_hidden_layers: not an InternVL chat model"
        )
    chosen = config.get("select_layer", -1)
    layers = chosen + (depth + 1 if chosen < 0 else 0)
    if not 0 <= layers <= depth:
        raise MapflowError(
            f"config.json has select_layer = {chosen}, which is not among the {depth} layers"
        )
    return layers

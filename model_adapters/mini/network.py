"""The bundled model: configuration, forward pass under masks, checkpoint folder.

The network is that of the LLaVA adapter, so training and loading use the same code.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from mapflow.model_adapters.checkpoints.network_loading import SafetensorsWeights
from mapflow.model_adapters.families.llava.network import LlavaNetwork
from mapflow.model_adapters.mini.planted import GRID, N_FRAMES
from mapflow.model_adapters.mini.tokenizer import IMAGE_TOKEN
from mapflow.results.contract.errors import MapflowError

IMAGE_SIZE = 64
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def mini_config(tokenizer: PreTrainedTokenizerFast, n_layers: int = 12) -> dict[str, Any]:
    """A `config.json` of the LLaVA-Video layout: 8 million parameters, 16 MiB in bfloat16."""
    vocabulary = -(-len(tokenizer) // 8) * 8
    return {
        "architectures": ["PllavaForConditionalGeneration"],
        "model_type": "llava",
        "torch_dtype": "bfloat16",
        "image_token_index": tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        "num_frames": N_FRAMES,
        "pooling_method": "avg",
        "pooling_shape": [N_FRAMES, GRID, GRID],
        "projector_hidden_act": "gelu",
        "use_pooling": True,
        "vocab_size": vocabulary,
        # The released models use the tower's last layer but one; this tower has three layers only.
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "default",
        "text_config": {
            "model_type": "llama",
            "hidden_size": 256,
            "intermediate_size": 448,
            "num_attention_heads": 8,
            "num_key_value_heads": 8,
            "num_hidden_layers": n_layers,
            "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-5,
            "vocab_size": vocabulary,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_attention_heads": 4,
            "num_hidden_layers": 3,
            "image_size": IMAGE_SIZE,
            "patch_size": 8,
            "projection_dim": 128,
        },
    }


def preprocessor_config() -> dict[str, Any]:
    """The settings of CLIP's image processor at this model's image size."""
    return {
        "image_processor_type": "CLIPImageProcessor",
        "processor_class": "PllavaProcessor",
        "do_resize": True,
        "size": {"shortest_edge": IMAGE_SIZE},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(CLIP_MEAN),
        "image_std": list(CLIP_STD),
        "do_convert_rgb": True,
    }


def new_network(config: dict[str, Any]) -> LlavaNetwork:
    """A network with random weights from torch's global generator.

    Linear layers use torch's initialisation: Llama's standard deviation of 0.02 is too small for a
    width of 256.
    """
    network = LlavaNetwork.from_config_dict(config)
    for module in network.language_model.modules():
        if isinstance(module, nn.Linear):
            module.reset_parameters()
    return network


def forward(
    network: LlavaNetwork,
    pixel_values: Float[Tensor, "batch frames 3 size size"],
    prefix: Int[Tensor, " prefix"],
    suffix: Int[Tensor, "batch suffix"],
    masks: Sequence[Bool[Tensor, "batch 1 n n"] | None],
) -> Float[Tensor, "batch suffix hidden"]:
    """Final hidden states of the positions after the video.

    masks: one per decoder layer, True where an edge is allowed; None for causal attention.
    """
    model = network.language_model.model
    video = network.encode_video(pixel_values)
    before = model.embed_tokens(prefix).expand(len(suffix), -1, -1)
    hidden = torch.cat([before, video.to(before.dtype), model.embed_tokens(suffix)], 1)
    positions = torch.arange(hidden.shape[1], device=hidden.device)[None]
    rotary = model.rotary_emb(hidden, positions)
    for layer, mask in zip(model.layers, masks, strict=True):
        hidden = layer(
            hidden, attention_mask=mask, position_ids=positions, position_embeddings=rotary
        )
    return model.norm(hidden)[:, -suffix.shape[1] :]


def save_checkpoint(
    network: LlavaNetwork, config: dict[str, Any], tokenizer: PreTrainedTokenizerFast, folder: Path
) -> None:
    """Writes a checkpoint folder in the released layout, with weights as bfloat16 safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        _released_name(name): value.detach().to("cpu", torch.bfloat16).contiguous()
        for name, value in network.state_dict().items()
        if not name.endswith("position_ids")
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save_pretrained(folder)
    # A class name that all supported versions of transformers accept.
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    _write(
        folder / "tokenizer_config.json", settings | {"tokenizer_class": "PreTrainedTokenizerFast"}
    )
    _write(folder / "config.json", config)
    _write(folder / "preprocessor_config.json", preprocessor_config())


def load_weights(network: LlavaNetwork, folder: Path) -> None:
    """Loads the weights of a folder that `save_checkpoint` wrote.

    Raises MapflowError for a missing or unknown weight, another shape or an integer format, since
    random weights would be trained instead.
    """
    saved = SafetensorsWeights([folder / "model.safetensors"], LlavaNetwork.renames)
    weights = {name: saved.read(name) for name in saved.shapes}
    try:
        lacking = network.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise MapflowError(
            f"{folder} does not fit this network: {str(error).splitlines()[-1].strip()}"
        ) from None
    missing = [name for name in lacking.missing_keys if not name.endswith("position_ids")]
    for kind, found in (("lacks", missing), ("has the unknown", lacking.unexpected_keys)):
        if found:
            raise MapflowError(
                f"{folder} {kind} {found[0]} ({len(found)} in all):"
                " not a checkpoint of this network"
            )


def _released_name(name: str) -> str:
    for released, here in LlavaNetwork.renames:
        if name.startswith(here):
            return released + name.removeprefix(here)
    return name


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")

"""LLaVA-NeXT-Video-FT (7B and 13B, and whatever shares their layout): folders, conversation and frames.

A checkpoint folder holds `config.json`, `tokenizer.json`, `preprocessor_config.json` and safetensors, as
`PllavaForConditionalGeneration.save_pretrained` of the paper's code wrote them. The conversation is the one the models
were trained on: system text, a turn that holds the video alone, a turn with the question, the begun answer.
Knows no benchmark, no intervention and nothing of lmms-eval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mapflow.model_adapters.checkpoint import digest, read_config, read_json, weight_files
from mapflow.model_adapters.checkpoint_pathways import checkpoint_pathways
from mapflow.model_adapters.conversation import (
    Text,
    Video,
    letter_ids,
    load_tokenizer,
    next_token_id,
    tokenize,
    user_pieces,
)
from mapflow.model_adapters.frame_sampling import segment_midpoints
from mapflow.model_adapters.image_preprocessing import ImagePreprocessing
from mapflow.model_adapters.interventions import Decoder, DecoderInputs, PathwayRanges, Segment
from mapflow.model_adapters.llava_network import LlavaNetwork
from mapflow.model_adapters.lora import CONFIG, TENSORS, LoraWeights, find_base
from mapflow.model_adapters.network_loading import SafetensorsWeights, Weights, load_network, resolve_dtype
from mapflow.model_adapters.video_llm import Prepared, VideoLLM
from mapflow.model_adapters.video_reader import read_frames
from mapflow.results.errors import MapflowError
from mapflow.results.question import Question

USER, ASSISTANT = " USER: ", " ASSISTANT:"


class LlavaVideo(VideoLLM):
    """One LLaVA-Video checkpoint. `load` reads it from a folder."""

    family = "llava"
    prompt_style = "completion"

    def __init__(
        self,
        network: LlavaNetwork,
        tokenizer: PreTrainedTokenizerBase,
        preprocessing: ImagePreprocessing,
        placeholder_id: int,
        *,
        name: str,
        digest: str,
        pathways: PathwayRanges | None = None,
    ) -> None:
        self.model = self.network = network
        self.tokenizer = tokenizer
        self.preprocessing = preprocessing
        self.placeholder_id = placeholder_id
        self.decoder = Decoder(network.language_model)
        self.name, self.digest, self.pathways = name, digest, pathways

    @classmethod
    def load(
        cls,
        path: str | Path,
        dtype: str | torch.dtype = "auto",
        device_map: str | Mapping[str, Any] = "cpu",
        lora: str | Path | None = None,
    ) -> LlavaVideo:
        """From a folder (or a hub name in the download cache): a full checkpoint, with or without a LoRA folder on top, or a LoRA folder that names its base.

        dtype and device_map are those of `network_loading.py`.
        Raises MapflowError for a folder that is missing, incomplete, of another family, or whose tensors do not fit.
        """
        folder, adapter = find_base(path, lora)
        config = read_config(folder, cls.family)
        tokenizer = load_tokenizer(folder)
        preprocessing = _preprocessing(folder)
        files = weight_files(folder)
        weights: Weights = SafetensorsWeights(files, LlavaNetwork.renames)
        if adapter:
            # Adapters were trained on the whole network or on its language model alone.
            weights = LoraWeights(weights, adapter, LlavaNetwork.renames, roots=("", "language_model."))
            files += [adapter / CONFIG, adapter / TENSORS]
        network = load_network(
            lambda: _build(config, folder),
            weights,
            dtype=resolve_dtype(dtype, config, device_map),
            device_map=device_map,
            no_split=("CLIPEncoderLayer", "LlamaDecoderLayer"),
        )
        return cls(
            network,
            tokenizer,
            preprocessing,
            _placeholder_id(config, tokenizer, folder),
            name="+".join(part.resolve().name for part in (folder, adapter) if part),
            digest=digest(files),
            pathways=checkpoint_pathways(adapter or folder),
        )

    def prepare(self, question: Question) -> Prepared:
        """Decode as many frames as the protocol asks for, by default one a frame position, and encode the question."""
        sampled = read_frames(question.clip, segment_midpoints, question.n_frames or self.network.n_frames)
        return self.encode(question, sampled.pixels, sampled.indices)

    def encode(
        self,
        question: Question,
        frames: UInt8[np.ndarray, "frames height width 3"],
        indices: Sequence[int] = (),
    ) -> Prepared:
        """The question with these RGB frames; `indices` are their numbers in the source (default: 0, 1, …).

        Pooling makes one frame position of every `frames / n_frames` frames in turn.
        Raises MapflowError where that is no whole number.
        """
        if not len(frames) or len(frames) % self.network.n_frames:
            raise MapflowError(
                f"{self.name} takes {self.network.n_frames} frames or a multiple of them, not {len(frames)}"
            )
        indices = tuple(indices) or tuple(range(len(frames)))
        prompt = question.prompt(self.prompt_style)
        conversation = tokenize(
            self.tokenizer,
            [
                Text(prompt.system + USER, Segment("system")),
                self._video(),
                Text("\n" + USER, Segment("template")),
                *user_pieces(question, self.prompt_style),
                Text(ASSISTANT + prompt.answer_prefix, Segment("template")),
            ],
            question,
        )
        option_ids = letter_ids(self.tokenizer, question.letters)
        return Prepared(
            question=question,
            input_ids=conversation.input_ids,
            layout=conversation.layout,
            vision={"pixel_values": self.preprocessing(frames)},
            frame_indices=indices,
            repeated_frames=len(indices) - len(set(indices)),
            option_ids=option_ids,
            target_id=next_token_id(self.tokenizer, conversation.text, question.target)
            if isinstance(question.target, str)
            else option_ids[question.target],
        )

    @torch.inference_mode()
    def embed(self, prepared: Sequence[Prepared]) -> list[DecoderInputs]:
        """Prompt embeddings with the video tokens in place: one vision-tower pass for all clips."""
        tower = next(self.network.vision_tower.parameters())
        pixels = torch.stack([item.vision["pixel_values"] for item in prepared])
        videos = self.network.encode_video(pixels.to(device=tower.device, dtype=tower.dtype))
        return [DecoderInputs(self._merge(item, video)) for item, video in zip(prepared, videos, strict=True)]

    def _merge(
        self, item: Prepared, video: Float[Tensor, "video_tokens hidden"]
    ) -> Float[Tensor, "n hidden"]:
        ids = item.input_ids.to(self.decoder.device)
        shown = ids == self.placeholder_id
        # The placeholder need not have a row of its own in the embedding table.
        embeds = self.network.language_model.get_input_embeddings()(ids.masked_fill(shown, 0))
        embeds[shown] = video.to(embeds)
        return embeds

    def _video(self) -> Video:
        frames, rows, columns = self.network.pooling_shape
        placeholder = self.tokenizer.convert_ids_to_tokens(self.placeholder_id)
        return Video(
            str(placeholder), tuple((Segment("frame", frame), rows * columns) for frame in range(frames))
        )


def _build(config: Mapping[str, Any], folder: Path) -> LlavaNetwork:
    try:
        return LlavaNetwork.from_config_dict(config)
    except Exception as error:  # each layer below refuses wrong values in its own way
        reason = " ".join(str(error).split())
        raise MapflowError(f"{folder / 'config.json'} describes no LLaVA-Video network: {reason}") from error


def _placeholder_id(config: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, folder: Path) -> int:
    token = config.get("image_token_index")
    if not isinstance(token, int) or token >= len(tokenizer):
        raise MapflowError(
            f"{folder}: image_token_index {token} of config.json is no token of tokenizer.json"
        )
    return token


def _preprocessing(folder: Path) -> ImagePreprocessing:
    file = folder / "processor_config.json"
    if file.is_file() and read_json(file).get("center_pad"):
        raise MapflowError(
            f"{file} asks for center_pad, which the released models do not use; it is not supported"
        )
    file = folder / "preprocessor_config.json"
    return ImagePreprocessing.from_config(read_json(file), str(file))

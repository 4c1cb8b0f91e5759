"""Mini-InternVL-Video-FT (and other InternVLChat folders): the conversation of Phi-3 around one video.

A checkpoint folder holds `config.json` (InternVLChatModel), `tokenizer.json`, `preprocessor_config.json` and safetensors
under the released names. System text, a turn that holds the video alone between `<img>` and `</img>`, a turn with the
question, the begun answer; turns are not closed, as the models were trained. Any number of frames, each a segment.
Newer InternVL checkpoints in transformers' own format (`-hf`) are `mapflow_hf`'s.
Knows no benchmark, no intervention and nothing of lmms-eval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mapflow.model_adapters.checkpoints.released import ReleasedCheckpoint
from mapflow.model_adapters.conversation import Text, Video, tokenize, user_pieces
from mapflow.model_adapters.device_copies import to_device
from mapflow.model_adapters.families.internvl.network import InternVLNetwork, n_vision_layers
from mapflow.model_adapters.families.internvl.weights import InternVLWeights
from mapflow.model_adapters.families.released_base import merge_video
from mapflow.model_adapters.frame_grid import View, centred_view, token_grid
from mapflow.model_adapters.interventions import Decoder, DecoderInputs, PathwayRanges, Segment
from mapflow.model_adapters.video.reader import read_frames
from mapflow.model_adapters.video.resizing import ImagePreprocessing
from mapflow.model_adapters.video.sampling import segment_midpoints
from mapflow.model_adapters.video_llm import Prepared, VideoLLM
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import Question

USER, ASSISTANT = " <|user|>\n", " <|assistant|>\n"
OPEN, PLACEHOLDER, CLOSE = "<img>", "<IMG_CONTEXT>", "</img>"
TURN_END = "<|end|>"
ROLES = ("<|user|>", "<|assistant|>", TURN_END, OPEN, CLOSE, PLACEHOLDER)


class InternVLVideo(VideoLLM):
    """One InternVLChat checkpoint with Phi-3. `load` reads it from a folder."""

    family = "internvl"
    prompt_style = "completion"

    def __init__(
        self,
        network: InternVLNetwork,
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
    ) -> InternVLVideo:
        """From what `ReleasedCheckpoint.open` takes; dtype and device_map are those of `network_loading.py`.

        Raises MapflowError for a folder that is missing, incomplete, of another family or with another conversation,
        or whose tensors do not fit.
        """
        checkpoint = ReleasedCheckpoint.open(path, lora, cls.family)
        _check_tokens(checkpoint)
        preprocessing = ImagePreprocessing.from_folder(checkpoint.folder)
        network = checkpoint.network(
            InternVLNetwork.from_config_dict,
            InternVLWeights(checkpoint.weights(), n_vision_layers(checkpoint.config)),
            dtype,
            device_map,
            no_split=("InternVLVisionLayer", "Phi3DecoderLayer"),
        )
        if preprocessing.crop != (network.image_size, network.image_size):
            raise MapflowError(
                f"{checkpoint.folder}: preprocessor_config.json crops frames to {preprocessing.crop} pixels,"
                f" the vision tower of config.json takes {network.image_size}"
            )
        placeholder_id = checkpoint.tokenizer.get_vocab()[PLACEHOLDER]
        return cls(
            network, checkpoint.tokenizer, preprocessing, placeholder_id, **checkpoint.identity
        )

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Also Phi-3's end of a turn, which is not the tokenizer's end of a text."""
        return (*super().stop_ids, self.tokenizer.get_vocab()[TURN_END])

    def prepare(self, question: Question) -> Prepared:
        """Decode as many frames as the protocol asks for, by default config.json's number, and encode the question."""
        sampled = read_frames(
            question.clip, segment_midpoints, question.n_frames or self.network.n_frames
        )
        return self.encode(question, sampled.pixels, sampled.indices)

    def encode(
        self,
        question: Question,
        frames: UInt8[np.ndarray, "frames height width 3"],
        indices: Sequence[int] = (),
    ) -> Prepared:
        """The question with these RGB frames; `indices` are their numbers in the source (default: 0, 1, …)."""
        prompt = question.prompt(self.prompt_style)
        runs = tuple(
            (Segment("frame", frame), self.network.tokens_per_frame) for frame in range(len(frames))
        )
        conversation = tokenize(
            self.tokenizer,
            [
                Text(prompt.system + USER + OPEN, Segment("system")),
                Video(PLACEHOLDER, runs),
                Text(CLOSE + "\n" + USER, Segment("template")),
                *user_pieces(question, self.prompt_style),
                Text(ASSISTANT + prompt.answer_prefix, Segment("template")),
            ],
            question,
        )
        vision = {"pixel_values": self.preprocessing(frames)}
        return self.prepared(
            question, conversation, vision, tuple(indices) or tuple(range(len(frames)))
        )

    @torch.inference_mode()
    def embed(self, prepared: Sequence[Prepared]) -> list[DecoderInputs]:
        """Prompt embeddings with the video tokens in place: one vision-tower pass for all clips."""
        tower = next(self.network.vision_model.parameters())
        pixels = [
            to_device(item.vision["pixel_values"], tower.device, tower.dtype) for item in prepared
        ]
        tokens = self.network.encode_video(torch.cat(pixels))
        sizes = [
            len(item.vision["pixel_values"]) * self.network.tokens_per_frame for item in prepared
        ]
        return [
            DecoderInputs(merge_video(self.decoder, item.input_ids, self.placeholder_id, video))
            for item, video in zip(prepared, tokens.split(sizes), strict=True)
        ]

    def token_grid(self, prepared: Prepared) -> Int[Tensor, "frame row column"]:
        """Squares of patches, row by row."""
        side = math.isqrt(self.network.tokens_per_frame)
        placeholder = torch.tensor([self.placeholder_id])
        return token_grid(prepared.layout, prepared.input_ids, placeholder, side, side)

    def view(self, height: int, width: int) -> View:
        """Frames are cropped to a square in the middle."""
        return centred_view(height, width, self.preprocessing.edge, self.preprocessing.crop)


def _check_tokens(checkpoint: ReleasedCheckpoint) -> None:
    """Other InternVL models wrap other language models, with other conversations."""
    vocabulary = checkpoint.tokenizer.get_vocab()
    absent = [token for token in ROLES if token not in vocabulary]
    if absent:
        template = checkpoint.config.get("template")
        raise MapflowError(
            f"{checkpoint.folder}: tokenizer.json has no {absent[0]!r} (template {template!r} of config.json); supported are"
            " InternVL models on Phi-3. Of others use the '-hf' checkpoint, with --model mapflow_hf"
        )

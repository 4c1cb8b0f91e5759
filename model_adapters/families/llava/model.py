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
from jaxtyping import Int, UInt8
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mapflow.model_adapters.checkpoints.released import ReleasedCheckpoint
from mapflow.model_adapters.conversation import Text, Video, tokenize, user_pieces
from mapflow.model_adapters.device_copies import to_device
from mapflow.model_adapters.families.llava.network import LlavaNetwork
from mapflow.model_adapters.families.released_base import merge_video
from mapflow.model_adapters.frame_grid import View, centred_view, token_grid
from mapflow.model_adapters.interventions import Decoder, DecoderInputs, PathwayRanges, Segment
from mapflow.model_adapters.video.reader import read_frames
from mapflow.model_adapters.video.resizing import ImagePreprocessing
from mapflow.model_adapters.video.sampling import segment_midpoints
from mapflow.model_adapters.video_llm import Prepared, VideoLLM
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import Question

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
        """From what `ReleasedCheckpoint.open` takes; dtype and device_map are those of `network_loading.py`.

        Raises MapflowError for a folder that is missing, incomplete, of another family, or whose tensors do not fit.
        """
        checkpoint = ReleasedCheckpoint.open(path, lora, cls.family)
        preprocessing = ImagePreprocessing.from_folder(checkpoint.folder)
        network = checkpoint.network(
            LlavaNetwork.from_config_dict,
            checkpoint.weights(LlavaNetwork.renames),
            dtype,
            device_map,
            no_split=("CLIPEncoderLayer", "LlamaDecoderLayer"),
        )
        placeholder_id = checkpoint.placeholder_id("image_token_index")
        return cls(
            network, checkpoint.tokenizer, preprocessing, placeholder_id, **checkpoint.identity
        )

    def prepare(self, question: Question) -> Prepared:
        """Decode as many frames as the protocol asks for, by default one a frame position, and encode the question."""
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
        return self.prepared(
            question, conversation, {"pixel_values": self.preprocessing(frames)}, indices
        )

    @torch.inference_mode()
    def embed(self, prepared: Sequence[Prepared]) -> list[DecoderInputs]:
        """Prompt embeddings with the video tokens in place: one vision-tower pass for all clips."""
        tower = next(self.network.vision_tower.parameters())
        pixels = [
            to_device(item.vision["pixel_values"], tower.device, tower.dtype) for item in prepared
        ]
        videos = self.network.encode_video(torch.stack(pixels))
        return [
            DecoderInputs(merge_video(self.decoder, item.input_ids, self.placeholder_id, video))
            for item, video in zip(prepared, videos, strict=True)
        ]

    def token_grid(self, prepared: Prepared) -> Int[Tensor, "frame row column"]:
        """Pooling keeps rows and columns."""
        _, rows, columns = self.network.pooling_shape
        placeholder = torch.tensor([self.placeholder_id])
        return token_grid(prepared.layout, prepared.input_ids, placeholder, rows, columns)

    def view(self, height: int, width: int) -> View:
        """Frames are cropped to a square in the middle."""
        return centred_view(height, width, self.preprocessing.edge, self.preprocessing.crop)

    def _video(self) -> Video:
        frames, rows, columns = self.network.pooling_shape
        placeholder = self.tokenizer.convert_ids_to_tokens(self.placeholder_id)
        return Video(
            str(placeholder),
            tuple((Segment("frame", frame), rows * columns) for frame in range(frames)),
        )

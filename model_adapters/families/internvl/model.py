"""Mini-InternVL-Video-FT and other InternVLChat checkpoints on Phi-3.

A checkpoint folder holds `config.json` (InternVLChatModel), `tokenizer.json`,
`preprocessor_config.json` and safetensors under the authors' names. The conversation: system text,
a turn with the video alone between `<img>` and `</img>`, a turn with the question, the begun
answer. Turns are not closed, as in the models' training. Any number of frames, each a segment. For
InternVL checkpoints in transformers' own format (`-hf`) use `mapflow_hf`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from mapflow.model_adapters.checkpoints.released import ReleasedCheckpoint
from mapflow.model_adapters.conversation import Text, Video, user_pieces
from mapflow.model_adapters.families.internvl.network import InternVLNetwork, n_vision_layers
from mapflow.model_adapters.families.internvl.weights import InternVLWeights
from mapflow.model_adapters.families.released_base import ReleasedVideoLLM, pixels_for
from mapflow.model_adapters.interventions import Segment
from mapflow.model_adapters.video.resizing import ImagePreprocessing
from mapflow.model_adapters.video_llm import Prepared
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import Question

USER, ASSISTANT = " <|user|>\n", " <|assistant|>\n"
PLAIN_USER, PLAIN_ASSISTANT = " USER: ", " ASSISTANT:"
OPEN, PLACEHOLDER, CLOSE = "<img>", "<IMG_CONTEXT>", "</img>"
TURN_END = "<|end|>"
ROLES = ("<|user|>", "<|assistant|>", TURN_END, OPEN, CLOSE, PLACEHOLDER)


class InternVLVideo(ReleasedVideoLLM[InternVLNetwork, ImagePreprocessing]):
    """One InternVLChat checkpoint with Phi-3."""

    family = "internvl"
    prompt_style = "completion"
    architectures = ("InternVLChatModel",)

    @classmethod
    def parts(
        cls, checkpoint: ReleasedCheckpoint
    ) -> tuple[InternVLNetwork, ImagePreprocessing, int]:
        """Raises MapflowError also for other conversations than Phi-3's and other crops."""
        _check_tokens(checkpoint)
        preprocessing = ImagePreprocessing.from_folder(checkpoint.folder)
        network = checkpoint.network(
            InternVLNetwork.from_config_dict,
            InternVLWeights(checkpoint.weights(), n_vision_layers(checkpoint.config)),
            no_split=("InternVLVisionLayer", "Phi3DecoderLayer"),
        )
        if preprocessing.crop != (network.image_size, network.image_size):
            raise MapflowError(
                f"{checkpoint.folder}: preprocessor_config.json crops frames to"
                f" {preprocessing.crop} pixels,"
                f" the vision tower of config.json takes {network.image_size}"
            )
        return network, preprocessing, checkpoint.tokenizer.get_vocab()[PLACEHOLDER]

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Also Phi-3's end of a turn, which differs from the tokenizer's end of a text."""
        return (*super().stop_ids, self.tokenizer.get_vocab()[TURN_END])

    @property
    def n_frames(self) -> int:
        """The number in config.json."""
        return self.network.n_frames

    def vision_inputs(
        self, frames: UInt8[np.ndarray, "frames height width 3"]
    ) -> dict[str, Tensor]:
        return {"pixel_values": self.preprocessing(frames)}

    def pieces(
        self, question: Question, vision: Mapping[str, Tensor], times: Sequence[float]
    ) -> list[Text | Video]:
        prompt = question.prompt(self.prompt_style)
        size = self.network.tokens_per_frame
        frames = range(len(vision["pixel_values"]))
        plain = prompt.plain_roles
        user, assistant = (PLAIN_USER, PLAIN_ASSISTANT) if plain else (USER, ASSISTANT)
        return [
            Text(prompt.system + user + OPEN, Segment("system")),
            Video(PLACEHOLDER, tuple((Segment("frame", frame), size) for frame in frames)),
            Text(CLOSE + "\n" + user, Segment("template")),
            *user_pieces(question, self.prompt_style),
            Text(assistant + prompt.answer_prefix, Segment("template")),
        ]

    def video_tokens(
        self, prepared: Sequence[Prepared]
    ) -> Sequence[Float[Tensor, "video_tokens hidden"]]:
        """One pass of the vision tower for all clips, whatever their number of frames."""
        pixels = [pixels_for(self.network.vision_model, item) for item in prepared]
        tokens = self.network.encode_video(torch.cat(pixels))
        return tokens.split([len(clip) * self.network.tokens_per_frame for clip in pixels])

    def frame_shape(self, prepared: Prepared) -> tuple[int, int]:
        side = math.isqrt(self.network.tokens_per_frame)
        return side, side


def _check_tokens(checkpoint: ReleasedCheckpoint) -> None:
    """Other InternVL models wrap other language models, with other conversations."""
    vocabulary = checkpoint.tokenizer.get_vocab()
    absent = [token for token in ROLES if token not in vocabulary]
    if absent:
        template = checkpoint.config.get("template")
        raise MapflowError(
            f"{checkpoint.folder}: tokenizer.json has no {absent[0]!r}"
            f" (template {template!r} of config.json); InternVL models on Phi-3 are supported:"
            " for others use the '-hf' checkpoint with --model mapflow_hf"
        )

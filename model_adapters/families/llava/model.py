"""LLaVA-NeXT-Video-FT (7B, 13B) and other checkpoints in their layout.

A checkpoint folder holds `config.json`, `tokenizer.json`, `preprocessor_config.json` and
safetensors, as `PllavaForConditionalGeneration.save_pretrained` of the authors' code writes them.
The conversation is the one of the models' training: system text, a turn with the video alone, a
turn with the question, the begun answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from mapflow.model_adapters.checkpoints.released import ReleasedCheckpoint
from mapflow.model_adapters.conversation import Text, Video, user_pieces
from mapflow.model_adapters.families.llava.network import LlavaNetwork
from mapflow.model_adapters.families.released_base import ReleasedVideoLLM, pixels_for
from mapflow.model_adapters.interventions import Segment
from mapflow.model_adapters.video.resizing import ImagePreprocessing
from mapflow.model_adapters.video_llm import Prepared
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import Question
from mapflow.results.contract.visible_text import counted

USER, ASSISTANT = " USER: ", " ASSISTANT:"


class LlavaVideo(ReleasedVideoLLM[LlavaNetwork, ImagePreprocessing]):
    """One LLaVA-Video checkpoint."""

    family = "llava"
    prompt_style = "completion"
    architectures = ("PllavaForConditionalGeneration",)

    @classmethod
    def parts(cls, checkpoint: ReleasedCheckpoint) -> tuple[LlavaNetwork, ImagePreprocessing, int]:
        preprocessing = ImagePreprocessing.from_folder(checkpoint.folder)
        network = checkpoint.network(
            LlavaNetwork.from_config_dict,
            checkpoint.weights(LlavaNetwork.renames),
            no_split=("CLIPEncoderLayer", "LlamaDecoderLayer"),
        )
        return network, preprocessing, checkpoint.placeholder_id("image_token_index")

    @property
    def n_frames(self) -> int:
        """One frame for each frame of video tokens."""
        return self.network.n_frames

    def vision_inputs(
        self, frames: UInt8[np.ndarray, "frames height width 3"]
    ) -> dict[str, Tensor]:
        """Pooling over time merges every `frames / n_frames` frames into one frame of video tokens.

        Raises MapflowError if that is not a whole number.
        """
        if not len(frames) or len(frames) % self.network.n_frames:
            raise MapflowError(
                f"{self.name} takes {counted(self.network.n_frames, 'frame')} or a multiple of"
                f" them,"
                f" not {len(frames)}"
            )
        return {"pixel_values": self.preprocessing(frames)}

    def pieces(
        self, question: Question, vision: Mapping[str, Tensor], times: Sequence[float]
    ) -> list[Text | Video]:
        prompt = question.prompt(self.prompt_style)
        frames, rows, columns = self.network.pooling_shape
        runs = tuple((Segment("frame", frame), rows * columns) for frame in range(frames))
        return [
            Text(prompt.system + USER, Segment("system")),
            Video(self.placeholder(), runs),
            Text("\n" + USER, Segment("template")),
            *user_pieces(question, self.prompt_style),
            Text(ASSISTANT + prompt.answer_prefix, Segment("template")),
        ]

    def video_tokens(
        self, prepared: Sequence[Prepared]
    ) -> Sequence[Float[Tensor, "video_tokens hidden"]]:
        """One pass of the vision tower for all clips."""
        pixels = [pixels_for(self.network.vision_tower, item) for item in prepared]
        return self.network.encode_video(torch.stack(pixels)).unbind()

    def frame_shape(self, prepared: Prepared) -> tuple[int, int]:
        """Pooling keeps rows and columns."""
        return self.network.pooling_shape[1:]

"""Base of families whose checkpoints keep the layout that their authors released.

Such a family is a network of this package (vision tower, projector, language model), an image
preprocessing, and a conversation around one placeholder token per video. The subclass names these
parts; loading, encoding a question and placing the video tokens in the prompt are here.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from mapflow.model_adapters.checkpoints.folder import architecture_of, check_sizes
from mapflow.model_adapters.checkpoints.released import ReleasedCheckpoint
from mapflow.model_adapters.conversation import Text, Video, tokenize
from mapflow.model_adapters.device_copies import to_device
from mapflow.model_adapters.families.registry import wrong_architecture
from mapflow.model_adapters.frame_grid import View, centred_view, token_grid
from mapflow.model_adapters.interventions import Decoder, DecoderInputs, PathwayRanges
from mapflow.model_adapters.video.reader import read_frames
from mapflow.model_adapters.video.resizing import ImagePreprocessing
from mapflow.model_adapters.video.sampling import (
    segment_midpoints,
)
from mapflow.model_adapters.video_llm import Prepared, VideoLLM
from mapflow.results.contract.question import Question

if TYPE_CHECKING:
    from typing_extensions import Self  # typing.Self needs Python 3.11

Network = TypeVar("Network", bound=nn.Module)
Preprocessing = TypeVar("Preprocessing")


class ReleasedVideoLLM(VideoLLM, Generic[Network, Preprocessing]):
    """One checkpoint in its authors' layout.

    Args:
        network: tower, projector and language model; the latter is its attribute `language_model`.
        preprocessing: from RGB frames to the tower's inputs.
        placeholder_id: the token that marks the video's positions in a prompt.
        name, digest, pathways: see `VideoLLM`.
    """

    def __init__(
        self,
        network: Network,
        tokenizer: PreTrainedTokenizerBase,
        preprocessing: Preprocessing,
        placeholder_id: int,
        *,
        name: str,
        digest: str,
        pathways: PathwayRanges | None = None,
    ) -> None:
        self.network, self.model = network, network
        self.tokenizer = tokenizer
        self.preprocessing = preprocessing
        self.placeholder_id = placeholder_id
        self.decoder = Decoder(network.language_model)  # pyright: ignore[reportArgumentType]
        self.name, self.digest, self.pathways = name, digest, pathways

    @classmethod
    def load(
        cls,
        path: str | Path,
        dtype: str | torch.dtype = "auto",
        device_map: str | Mapping[str, Any] = "cpu",
        lora: str | Path | None = None,
    ) -> Self:
        """From a folder, or a hub name in the download cache (`ReleasedCheckpoint.open`).

        `network_loading.py` describes `dtype` and `device_map`. Raises MapflowError for a folder
        that is missing, incomplete, of another family, or whose tensors do not fit.
        """
        return cls._load(path, dtype, device_map, lora)

    @classmethod
    def _load(
        cls,
        path: str | Path,
        dtype: str | torch.dtype,
        device_map: str | Mapping[str, Any],
        lora: str | Path | None,
        **options: Any,
    ) -> Self:
        checkpoint = ReleasedCheckpoint.open(path, lora, dtype, device_map, cls.check_config)
        network, preprocessing, placeholder_id = cls.parts(checkpoint, **options)
        return cls(
            network, checkpoint.tokenizer, preprocessing, placeholder_id, **checkpoint.identity
        )

    @classmethod
    @abstractmethod
    def parts(cls, checkpoint: ReleasedCheckpoint) -> tuple[Network, Preprocessing, int]:
        """The loaded network, the preprocessing and the placeholder's id. Raises as `load`."""

    @classmethod
    def check_config(cls, folder: Path, config: Mapping[str, Any]) -> None:
        """Raises MapflowError for absurd sizes and for other families, naming the one that fits."""
        architecture = architecture_of(config)
        if not cls.reads(architecture):
            raise wrong_architecture(cls.family, folder, architecture, cls.architectures)
        check_sizes(config, folder / "config.json")

    @property
    def n_frames(self) -> int:
        """Frames to show if the protocol asks for no number."""
        return 8

    def prepare(self, question: Question) -> Prepared:
        """Encodes the question with frames chosen as in the paper for LLaVA and InternVL."""
        self.check_text(question)
        sampled = read_frames(question.clip, segment_midpoints, question.n_frames or self.n_frames)
        return self.encode(question, sampled.pixels, sampled.indices)

    def encode(
        self,
        question: Question,
        frames: UInt8[np.ndarray, "frames height width 3"],
        indices: Sequence[int] = (),
        times: Sequence[float] = (),
    ) -> Prepared:
        """The question with these RGB frames.

        Args:
            indices: the frames' numbers in the source; default 0, 1, ….
            times: seconds at which the frames are shown, for families that tell the model; default
                one frame per second.
        """
        vision = self.vision_inputs(frames)
        times = tuple(times) or tuple(map(float, range(len(frames))))
        conversation = tokenize(self.tokenizer, self.pieces(question, vision, times), question)
        indices = tuple(indices) or tuple(range(len(frames)))
        return self.prepared(question, conversation, vision, indices)

    @abstractmethod
    def vision_inputs(
        self, frames: UInt8[np.ndarray, "frames height width 3"]
    ) -> dict[str, Tensor]:
        """The tower's inputs: `pixel_values`, and the frames' `grid` if clips differ in size."""

    @abstractmethod
    def pieces(
        self, question: Question, vision: Mapping[str, Tensor], times: Sequence[float]
    ) -> list[Text | Video]:
        """The conversation from the system text to the beginning of the answer."""

    @torch.inference_mode()
    def embed(self, prepared: Sequence[Prepared]) -> list[DecoderInputs]:
        """Prompt embeddings with the video tokens in place; every clip is encoded once."""
        return [
            DecoderInputs(merge_video(self.decoder, item.input_ids, self.placeholder_id, video))
            for item, video in zip(prepared, self.video_tokens(prepared), strict=True)
        ]

    @abstractmethod
    def video_tokens(
        self, prepared: Sequence[Prepared]
    ) -> Iterable[Float[Tensor, "video_tokens hidden"]]:
        """Each prompt's video tokens as the projector returns them, frame by frame."""

    def token_grid(self, prepared: Prepared) -> Int[Tensor, "frame row column"]:
        """Positions of every frame's tokens, which lie row by row."""
        placeholder = torch.tensor([self.placeholder_id])
        rows, columns = self.frame_shape(prepared)
        return token_grid(prepared.layout, prepared.input_ids, placeholder, rows, columns)

    @abstractmethod
    def frame_shape(self, prepared: Prepared) -> tuple[int, int]:
        """Rows and columns of one frame's video tokens."""

    def view(self, height: int, width: int) -> View:
        """A crop in the middle if the preprocessing crops, else the whole frame."""
        if isinstance(self.preprocessing, ImagePreprocessing):
            return centred_view(height, width, self.preprocessing.edge, self.preprocessing.crop)
        return super().view(height, width)

    def placeholder(self) -> str:
        """The placeholder as text."""
        return str(self.tokenizer.convert_ids_to_tokens(self.placeholder_id))


def pixels_for(tower: nn.Module, prepared: Prepared) -> Float[Tensor, "*shape"]:
    """A prompt's pixel values on the tower's device, in its precision."""
    weight = next(tower.parameters())
    return to_device(prepared.vision["pixel_values"], weight.device, weight.dtype)


def merge_video(
    decoder: Decoder,
    input_ids: Int[Tensor, " n"],
    placeholder_id: int,
    video: Float[Tensor, "video_tokens hidden"],
) -> Float[Tensor, "n hidden"]:
    """Embeddings of an expanded prompt, with `video` in order at the placeholder's positions."""
    is_video = input_ids == placeholder_id
    # Positions are found on the CPU: a mask as an index would make the host wait for the device.
    positions = to_device(is_video.nonzero()[:, 0], decoder.device)
    # The embedding table need not have an entry for the placeholder.
    embeds = decoder.core.get_input_embeddings()(
        to_device(input_ids.masked_fill(is_video, 0), decoder.device)
    )
    embeds[positions] = video.to(embeds)
    return embeds

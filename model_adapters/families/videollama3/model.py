"""VideoLLaMA3 in the layouts of the hub and of the paper's local class.

The model is told when each frame is shown: `Time 0.8s:`, then the frame's video tokens, then a
comma. Times and commas belong to the video, as in the authors' code; otherwise a cut between video
and question would leave a path through them. A frame begins with the comma that ends the one
before. Any number of frames, of any size. For checkpoints in transformers' own format use
`mapflow_hf`.

Token compression drops video tokens that hardly change between frames. It is never applied,
whatever config.json says, because the paper's analysis switches it off.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from mapflow.model_adapters.checkpoints.folder import find_folder
from mapflow.model_adapters.checkpoints.released import ReleasedCheckpoint
from mapflow.model_adapters.conversation import Text, Video, user_pieces
from mapflow.model_adapters.families.released_base import ReleasedVideoLLM, pixels_for
from mapflow.model_adapters.families.videollama3.network import VideoLlama3Network, VisionAttention
from mapflow.model_adapters.families.videollama3.pixels import PatchPreprocessing
from mapflow.model_adapters.interventions import Segment
from mapflow.model_adapters.video.reader import SampledFrames, VideoError, read_frames
from mapflow.model_adapters.video.sampling import trimmed_linspace
from mapflow.model_adapters.video_llm import Prepared
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.files import read_json
from mapflow.results.contract.question import Clip, Question

if TYPE_CHECKING:
    from typing_extensions import Self  # typing.Self needs Python 3.11

START, END = "<|im_start|>", "<|im_end|>\n"
FRAME_TOKENS = 12 * 12
"""Most video tokens of a frame in the paper's analysis (8 × 12 × 12 for a clip)."""


class VideoLlama3(ReleasedVideoLLM[VideoLlama3Network, PatchPreprocessing]):
    """One VideoLLaMA3 checkpoint."""

    family = "videollama3"
    prompt_style = "chat"
    architectures = ("Videollama3Qwen2ForCausalLM",)

    @classmethod
    def load(
        cls,
        path: str | Path,
        dtype: str | torch.dtype = "auto",
        device_map: str | Mapping[str, Any] = "cpu",
        lora: str | Path | None = None,
        vision_attention: VisionAttention = "released",
        max_tokens: int | None = None,
    ) -> Self:
        """As `ReleasedVideoLLM.load`.

        The defaults are those of the paper's analysis: frames mix in the vision tower (`released`),
        and a clip has at most 144 video tokens per frame (8×12×12). With `isolated` frames stay
        apart, as in the model's training. `max_tokens` is the most video tokens of a clip; the
        checkpoint's own limit, mostly 16384, is in its preprocessor_config.json.
        """
        if vision_attention not in get_args(VisionAttention):
            known = " or ".join(get_args(VisionAttention))
            raise MapflowError(f"vision_attention={vision_attention!r} must be {known}")
        if max_tokens is not None and max_tokens < 1:
            raise MapflowError(f"max_tokens={max_tokens} must be at least 1 video token")
        return cls._load(
            path, dtype, device_map, lora, vision_attention=vision_attention, max_tokens=max_tokens
        )

    @classmethod
    def parts(
        cls,
        checkpoint: ReleasedCheckpoint,
        vision_attention: VisionAttention = "released",
        max_tokens: int | None = None,
    ) -> tuple[VideoLlama3Network, PatchPreprocessing, int]:
        tower, vision_config = _tower(checkpoint)
        file = tower / "preprocessor_config.json"
        preprocessing = PatchPreprocessing.from_config(
            read_json(file), str(file), merge=_merge(checkpoint.folder)
        )
        if max_tokens is None:
            preprocessing = replace(preprocessing, frame_tokens=FRAME_TOKENS)
        else:
            preprocessing = replace(preprocessing, max_tokens=max_tokens)
        network = checkpoint.network(
            partial(
                VideoLlama3Network.from_config_dict,
                vision_config=vision_config,
                merge=preprocessing.merge,
                vision_attention=vision_attention,
            ),
            checkpoint.weights(VideoLlama3Network.renames),
            no_split=("VideoLlama3VisionEncoderLayer", "Qwen2DecoderLayer"),
        )
        return network, preprocessing, checkpoint.placeholder_id("image_token_index")

    def prepare(self, question: Question) -> Prepared:
        """Encodes the question with evenly spaced frames of the trimmed clip, and their times."""
        self.check_text(question)
        sampled = read_frames(question.clip, trimmed_linspace, question.n_frames or self.n_frames)
        times = told_times(sampled, question.clip)
        return self.encode(question, sampled.pixels, sampled.indices, times)

    def vision_inputs(
        self, frames: UInt8[np.ndarray, "frames height width 3"]
    ) -> dict[str, Tensor]:
        """Pixel values of all patches, and `grid`: frames, rows and columns of patches."""
        pixels, grid = self.preprocessing(frames)
        return {"pixel_values": pixels, "grid": torch.tensor(grid)}

    def pieces(
        self, question: Question, vision: Mapping[str, Tensor], times: Sequence[float]
    ) -> list[Text | Video]:
        prompt = question.prompt(self.prompt_style)
        opening = f"{START}system\n{prompt.system}{END}" if prompt.system else ""
        return [
            Text(f"{opening}{START}user\n", Segment("system")),
            *self._video(times, vision["grid"]),
            Text("\n", Segment("template")),
            *_with_line_ends(user_pieces(question, self.prompt_style)),
            Text(f"{END}{START}assistant\n{prompt.answer_prefix}", Segment("template")),
        ]

    def video_tokens(
        self, prepared: Sequence[Prepared]
    ) -> Iterator[Float[Tensor, "video_tokens hidden"]]:
        """Clip by clip: their frames differ in size."""
        for item in prepared:
            frames, rows, columns = item.vision["grid"].tolist()
            pixels = pixels_for(self.network.vision_model, item)
            yield self.network.encode_video(pixels, (frames, rows, columns))

    def frame_shape(self, prepared: Prepared) -> tuple[int, int]:
        _, rows, columns = (prepared.vision["grid"] // self.preprocessing.merge).tolist()
        return rows, columns

    def _video(self, times: Sequence[float], grid: Tensor) -> list[Text | Video]:
        _, rows, columns = grid.tolist()
        size = rows * columns // self.preprocessing.merge**2
        pieces: list[Text | Video] = []
        for frame, time in enumerate(times):
            segment = Segment("frame", frame)
            comma = "," if frame else ""
            pieces += [
                Text(f"{comma}Time {time:.1f}s:", segment),
                Video(self.placeholder(), ((segment, size),)),
            ]
        return pieces


def told_times(sampled: SampledFrames, clip: Clip) -> list[float]:
    """The times in seconds that the model is told for frames chosen by `trimmed_linspace`.

    As in the authors' code, they are evenly spaced over the clip with both ends included: the last
    frame gets the time of the clip's end. Raises VideoError if the file has no frame rate.
    """
    if not sampled.fps > 0:
        raise VideoError(
            f"video {clip.path!r}: has no frame rate, and this model is told the time of each frame"
        )
    length = sampled.n_source / sampled.fps
    start = max(clip.start or 0.0, 0.0)
    end = length if clip.end is None else min(clip.end, length)
    first, last = sampled.indices[0], sampled.indices[-1]
    return [
        start + (end - start) * (index - first) / max(last - first, 1) for index in sampled.indices
    ]


def _with_line_ends(pieces: Sequence[Text]) -> list[Text]:
    """Line ends after stem and options belong to them: the authors' code looks for "text\\n"."""
    moved: list[Text] = []
    for piece in pieces:
        if moved and moved[-1].segment.kind in ("stem", "option") and piece.text.startswith("\n"):
            moved[-1] = Text(moved[-1].text + "\n", moved[-1].segment)
            piece = Text(piece.text.removeprefix("\n"), piece.segment)
        moved.append(piece)
    return [piece for piece in moved if piece.text]


def _merge(folder: Path) -> int:
    """Side, in patches, of one video token: the processor's setting for videos, 2 by default."""
    file = folder / "processor_config.json"
    return int(read_json(file).get("video_merge_size", 2)) if file.is_file() else 2


def _tower(checkpoint: ReleasedCheckpoint) -> tuple[Path, Mapping[str, Any]]:
    """(folder with the preprocessor's file, config of the vision tower).

    On the hub both are in the checkpoint; the local layout names a folder beside it. Raises
    MapflowError if that folder is absent.
    """
    own, named = (
        checkpoint.config.get("vision_encoder_config"),
        checkpoint.config.get("vision_encoder"),
    )
    if own:
        return checkpoint.folder, own
    if not named:
        file = checkpoint.folder / "config.json"
        raise MapflowError(f"{file} has neither vision_encoder_config nor vision_encoder")
    beside = checkpoint.folder.resolve().parent / Path(named).name
    try:
        folder = beside if beside.is_dir() else find_folder(named)
    except MapflowError as error:
        raise MapflowError(
            f"{checkpoint.folder} takes its vision tower from {named!r}, which is not beside it:"
            f" {error}"
        ) from error
    return folder, read_json(folder / "config.json")

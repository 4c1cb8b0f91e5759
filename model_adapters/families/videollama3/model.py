"""VideoLLaMA3 in the layouts of its release: the hub's, and the one that the paper's local class saves.

The model is told when each frame was shown: `Time 0.8s:`, then the frame's video tokens, then a comma. Times and commas
are part of the video, as in the paper's code, or a cut between video and question would leave them as a way around;
a frame begins with the comma that ends the one before. Any number of frames, of any size. Checkpoints in transformers'
own format are `mapflow_hf`'s.

Token compression, with which the model drops video tokens that hardly change between frames, is never applied, whatever
config.json says: the paper's analysis switches it off.

Knows no benchmark, no intervention and nothing of lmms-eval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mapflow.model_adapters.checkpoints.folder import find_folder
from mapflow.model_adapters.checkpoints.released import ReleasedCheckpoint
from mapflow.model_adapters.conversation import Text, Video, tokenize, user_pieces
from mapflow.model_adapters.device_copies import to_device
from mapflow.model_adapters.families.released_base import merge_video
from mapflow.model_adapters.families.videollama3.network import VideoLlama3Network, VisionAttention
from mapflow.model_adapters.families.videollama3.pixels import PatchPreprocessing
from mapflow.model_adapters.frame_grid import token_grid
from mapflow.model_adapters.interventions import Decoder, DecoderInputs, PathwayRanges, Segment
from mapflow.model_adapters.video.reader import SampledFrames, VideoError, read_frames
from mapflow.model_adapters.video.sampling import trimmed_linspace
from mapflow.model_adapters.video_llm import Prepared, VideoLLM
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.files import read_json
from mapflow.results.contract.question import Clip, Question

N_FRAMES = 8  # where the protocol asks for no number
START, END = "<|im_start|>", "<|im_end|>\n"


class VideoLlama3(VideoLLM):
    """One VideoLLaMA3 checkpoint. `load` reads it from a folder."""

    family = "videollama3"
    prompt_style = "chat"

    def __init__(
        self,
        network: VideoLlama3Network,
        tokenizer: PreTrainedTokenizerBase,
        preprocessing: PatchPreprocessing,
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
        vision_attention: VisionAttention = "isolated",
    ) -> VideoLlama3:
        """From what `ReleasedCheckpoint.open` takes; dtype and device_map are those of `network_loading.py`.

        `vision_attention="released"` repeats the paper's analysis, in which frames mix in the vision tower; the default
        keeps them apart, as the model was trained. The two are different models, so the name tells them apart.

        Raises MapflowError for a folder that is missing, incomplete, of another family, or whose tensors do not fit.
        """
        if vision_attention not in get_args(VisionAttention):
            known = " or ".join(get_args(VisionAttention))
            raise MapflowError(f"vision_attention={vision_attention!r} must be {known}")
        checkpoint = ReleasedCheckpoint.open(path, lora, cls.family)
        tower, vision_config = _tower(checkpoint)
        file = tower / "preprocessor_config.json"
        preprocessing = PatchPreprocessing.from_config(
            read_json(file), str(file), merge=_merge(checkpoint.folder)
        )
        network = checkpoint.network(
            partial(
                VideoLlama3Network.from_config_dict,
                vision_config=vision_config,
                merge=preprocessing.merge,
                vision_attention=vision_attention,
            ),
            checkpoint.weights(VideoLlama3Network.renames),
            dtype,
            device_map,
            no_split=("VideoLlama3VisionEncoderLayer", "Qwen2DecoderLayer"),
        )
        identity = checkpoint.identity
        if vision_attention != "isolated":
            identity["name"] += f"+{vision_attention}-vision-attention"
        placeholder_id = checkpoint.placeholder_id("image_token_index")
        return cls(network, checkpoint.tokenizer, preprocessing, placeholder_id, **identity)

    def prepare(self, question: Question) -> Prepared:
        """Decode as many frames as the protocol asks for, by default 8, and encode the question."""
        sampled = read_frames(question.clip, trimmed_linspace, question.n_frames or N_FRAMES)
        return self.encode(
            question, sampled.pixels, told_times(sampled, question.clip), sampled.indices
        )

    def encode(
        self,
        question: Question,
        frames: UInt8[np.ndarray, "frames height width 3"],
        times: Sequence[float] = (),
        indices: Sequence[int] = (),
    ) -> Prepared:
        """The question with these RGB frames.

        `times` are the seconds that the model is told (default: one frame a second), `indices` the frames' numbers in
        the source (default: 0, 1, …).
        """
        indices = tuple(indices) or tuple(range(len(frames)))
        prompt = question.prompt(self.prompt_style)
        pixels, grid = self.preprocessing(frames)
        opening = f"{START}system\n{prompt.system}{END}" if prompt.system else ""
        conversation = tokenize(
            self.tokenizer,
            [
                Text(f"{opening}{START}user\n", Segment("system")),
                *self._video(tuple(times) or tuple(map(float, range(len(frames)))), grid),
                Text("\n", Segment("template")),
                *_with_line_ends(user_pieces(question, self.prompt_style)),
                Text(f"{END}{START}assistant\n{prompt.answer_prefix}", Segment("template")),
            ],
            question,
        )
        return self.prepared(
            question, conversation, {"pixel_values": pixels, "grid": torch.tensor(grid)}, indices
        )

    @torch.inference_mode()
    def embed(self, prepared: Sequence[Prepared]) -> list[DecoderInputs]:
        """Prompt embeddings with the video tokens in place, clip by clip: their frames differ in size."""
        tower = next(self.network.vision_model.parameters())
        embedded = []
        for item in prepared:
            pixels = to_device(item.vision["pixel_values"], tower.device, tower.dtype)
            frames, rows, columns = item.vision["grid"].tolist()
            video = self.network.encode_video(pixels, (frames, rows, columns))
            embedded.append(
                DecoderInputs(merge_video(self.decoder, item.input_ids, self.placeholder_id, video))
            )
        return embedded

    def token_grid(self, prepared: Prepared) -> Int[Tensor, "frame row column"]:
        """Squares of patches, row by row; the whole frame is seen."""
        _, rows, columns = (prepared.vision["grid"] // self.preprocessing.merge).tolist()
        placeholder = torch.tensor([self.placeholder_id])
        return token_grid(prepared.layout, prepared.input_ids, placeholder, rows, columns)

    def _video(self, times: Sequence[float], grid: tuple[int, int, int]) -> list[Text | Video]:
        placeholder = str(self.tokenizer.convert_ids_to_tokens(self.placeholder_id))
        size = grid[1] * grid[2] // self.preprocessing.merge**2
        pieces: list[Text | Video] = []
        for frame, time in enumerate(times):
            segment = Segment("frame", frame)
            comma = "," if frame else ""
            pieces += [
                Text(f"{comma}Time {time:.1f}s:", segment),
                Video(placeholder, ((segment, size),)),
            ]
        return pieces


def told_times(sampled: SampledFrames, clip: Clip) -> list[float]:
    """The seconds that the model is told for frames chosen by `trimmed_linspace`.

    As the released code has it, the stretch's frames lie evenly on it with both ends included: the last one is told to be
    shown at the very end, not one frame's duration before. Raises VideoError where the file tells no frame rate.
    """
    if not sampled.fps > 0:
        raise VideoError(
            f"video {clip.path!r}: tells no frame rate, and this model is told the time of each frame"
        )
    length = sampled.n_source / sampled.fps
    start = max(clip.start or 0.0, 0.0)
    end = length if clip.end is None else min(clip.end, length)
    first, last = sampled.indices[0], sampled.indices[-1]
    return [
        start + (end - start) * (index - first) / max(last - first, 1) for index in sampled.indices
    ]


def _with_line_ends(pieces: Sequence[Text]) -> list[Text]:
    """The line's end after the stem and after an option belongs to them: the released code looks for "text\\n"."""
    moved: list[Text] = []
    for piece in pieces:
        if moved and moved[-1].segment.kind in ("stem", "option") and piece.text.startswith("\n"):
            moved[-1] = Text(moved[-1].text + "\n", moved[-1].segment)
            piece = Text(piece.text.removeprefix("\n"), piece.segment)
        moved.append(piece)
    return [piece for piece in moved if piece.text]


def _merge(folder: Path) -> int:
    """How many patches a side a video token has: what the folder's processor says of videos, 2 as released."""
    file = folder / "processor_config.json"
    return int(read_json(file).get("video_merge_size", 2)) if file.is_file() else 2


def _tower(checkpoint: ReleasedCheckpoint) -> tuple[Path, Mapping[str, Any]]:
    """(folder with the preprocessor's file, the vision tower's config).

    On the hub both are the checkpoint's own; the local layout names a folder beside it, of which only these are needed.
    Raises MapflowError where that folder is absent.
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
            f"{checkpoint.folder} takes its vision tower from {named!r}, which is not beside it: {error}"
        ) from error
    return folder, read_json(folder / "config.json")

"""Shared by the benchmarks of ordinary experiments: a random LLaVA, clips, questions, records.

Clips are encoded when the benchmark starts (x264's defaults: B-frames, a keyframe every 250
frames), read with the project's reader, and asked about repeatedly under other ids. Requires
neither lmms-eval nor a benchmark's data.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from mapflow.model_adapters.checkpoints.pathways import scaled_pathways
from mapflow.model_adapters.families import released_base
from mapflow.model_adapters.families.llava.model import LlavaVideo
from mapflow.model_adapters.families.llava.network import LlavaNetwork
from mapflow.model_adapters.families.registry import BUNDLED
from mapflow.model_adapters.inference.batch_size import BatchSize
from mapflow.model_adapters.inference.question_loading import load_ahead, loading_threads
from mapflow.model_adapters.inference.run_loop import answer_questions
from mapflow.model_adapters.interventions import Intervention
from mapflow.model_adapters.video.resizing import ImagePreprocessing
from mapflow.results.contract.question import Clip, Prompt, Question
from mapflow.results.records.record import Record
from mapflow.results.runs.folder import RunFolder
from tests.benchmarks.procedures import SIZES, Size

PATHWAYS_OF = "LLaVA-NeXT-7B-Video-FT"
GRAIN = 20
"""Levels of noise. They make eight seconds of 1080p about 3 MB, as in web video."""

PROMPT = Prompt(
    system="Carefully watch the video and pay attention to the cause and sequence of events.\n",
    stem_label="Question: ",
    options_label="\nOptions:\n",
    option="({letter}) {text}",
    option_separator="\n",
    instruction="\nOnly give the best option.",
    answer_prefix="Best option:(",
)


@dataclass(frozen=True)
class Scene:
    """The size of a model and its clips.

    `clips` different ones of `width` × `height` pixels and `seconds` at 25 frames per second.
    """

    size: Size
    width: int
    height: int
    seconds: float
    clips: int

    def lasting(self, seconds: float | None) -> Scene:
        return self if seconds is None else replace(self, seconds=seconds)


SCENES = {
    "small": Scene(SIZES["small"], 320, 240, 2, 2),
    "7b": Scene(SIZES["7b"], 1920, 1080, 8, 4),
}


def random_llava(size: Size, device: str, dtype: torch.dtype) -> LlavaVideo:
    """A LLaVA with random weights made on `device`, equal on all devices of one kind.

    Uses the tokenizer of the bundled model.
    """
    config = json.loads((BUNDLED / "config.json").read_text())
    side = round(size.tokens**0.5)
    config["text_config"] |= {
        "hidden_size": size.hidden,
        "intermediate_size": size.feed_forward,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.heads,
        "vocab_size": size.vocabulary,
        "max_position_embeddings": 16384,
    }
    config["vision_config"] = {
        "model_type": "clip_vision_model",
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": size.vision_layers,
        "image_size": size.pixels,
        "patch_size": 14,
    }
    config |= {"pooling_shape": [size.frames, side, side], "vision_feature_layer": -2}
    before = torch.get_default_dtype()
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            network = LlavaNetwork.from_config_dict(config).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(before)
    for parameter in network.language_model.parameters():
        if parameter.ndim > 1:
            parameter.normal_(0, 2.2 / size.hidden**0.5)
    preprocessing = ImagePreprocessing.from_folder(BUNDLED)
    return LlavaVideo(
        network,
        PreTrainedTokenizerFast.from_pretrained(BUNDLED),
        replace(preprocessing, edge=size.pixels, crop=(size.pixels, size.pixels)),
        config["image_token_index"],
        name="random",
        digest="random",
        pathways=scaled_pathways(PATHWAYS_OF, size.layers),
    )


def write_clips(scene: Scene, folder: Path) -> list[Path]:
    """Writes clips of coloured blocks that drift over a gradient, with noise."""
    with ThreadPoolExecutor(scene.clips) as pool:
        return list(
            pool.map(
                lambda number: _write_clip(scene, folder / f"{number}.mp4", number),
                range(scene.clips),
            )
        )


def _write_clip(scene: Scene, path: Path, seed: int) -> Path:
    import av

    draw = np.random.default_rng(seed)
    blocks = draw.integers(0, 256, (scene.height // 8 + 1, scene.width // 8 + 1, 3), dtype=np.uint8)
    canvas = blocks.repeat(8, 0).repeat(8, 1)[: scene.height, : scene.width]
    canvas = (canvas // 4 + np.linspace(0, 150, scene.width, dtype=np.uint8)[None, :, None]).astype(
        np.uint8
    )
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = scene.width, scene.height, "yuv420p"
        stream.options = {"preset": "veryfast"}
        grain = draw.integers(0, GRAIN, (scene.height, scene.width, 3), dtype=np.uint8)
        for number in range(int(scene.seconds * 25)):
            moved = np.roll(canvas, (number, 3 * number), (0, 1)) + np.roll(
                grain, 97 * number * number, 1
            )
            for packet in stream.encode(av.VideoFrame.from_ndarray(moved, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return path


def questions(clips: Sequence[Path], n: int) -> list[Question]:
    """`n` four-way questions of slightly different lengths, cycling through the clips."""
    stem = "In which direction does the red ball move after the hand lets go of it"
    options = (
        "It moves to the left",
        "It moves to the right",
        "It moves up",
        "It stays where it is",
    )
    return [
        Question(
            question_id=f"q{number:05d}",
            video_id=clips[number % len(clips)].name,
            task="benchmark",
            clip=Clip(str(clips[number % len(clips)])),
            stem=stem + " now" * (number % 7) + "?",
            options=options,
            target=number % 4,
            protocol="benchmark",
            prompts={"completion": PROMPT, "chat": PROMPT},
        )
        for number in range(n)
    ]


def answer_into(
    folder: Path,
    model: LlavaVideo,
    asked: Sequence[Question],
    interventions: Sequence[Intervention],
    batch_size: int = 1,
    moments: list[float] | None = None,
) -> list[Record]:
    """Answers through the pipeline of `generate_until`, appending records as they come.

    `moments` receives the time of each question's records.
    """
    run = RunFolder(folder, {"benchmark": "random weights"}, {})
    found = []
    for _, records in answer_questions(model, asked, interventions, BatchSize(batch_size)):
        run.append(records)
        found += records
        if moments is not None:
            moments.append(time.perf_counter())
    bad = [record.error for record in found if record.error]
    assert not bad, bad[0]
    return found


class Counts:
    """Counts the clips decoded and encoded within `counting`."""

    def __init__(self) -> None:
        self.decoded = self.encoded = 0

    @contextmanager
    def counting(self, model: LlavaVideo) -> Iterator[Counts]:
        read, encode = released_base.read_frames, model.network.encode_video

        def read_frames(*arguments: Any) -> Any:
            self.decoded += 1
            return read(*arguments)

        def encode_video(pixels: Any) -> Any:
            self.encoded += len(pixels)
            return encode(pixels)

        released_base.read_frames, model.network.encode_video = read_frames, encode_video  # pyright: ignore[reportAttributeAccessIssue]
        try:
            yield self
        finally:
            released_base.read_frames, model.network.encode_video = read, encode


def preparing_seconds(model: LlavaVideo, asked: Sequence[Question]) -> float:
    """Mean seconds in which one thread prepares a question on an idle machine."""
    begun = time.perf_counter()
    for question in asked:
        model.prepare(question)
    return (time.perf_counter() - begun) / len(asked)


def loading_seconds(model: LlavaVideo, asked: Sequence[Question]) -> float:
    """Seconds per question while all threads load and none answers: a lower bound."""
    begun = time.perf_counter()
    for _, prepared in load_ahead(model, asked):
        assert not isinstance(prepared, Exception), prepared
    return (time.perf_counter() - begun) / len(asked)


def threads_here(device: str) -> int:
    """The number of threads that `load_ahead` chooses."""
    cores = len(os.sched_getaffinity(0))
    return (
        2 if device == "cpu" else loading_threads(cores, int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
    )


def device_here() -> tuple[str, torch.dtype]:
    """One GPU per process in bfloat16, or the CPU in float32."""
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
        return f"cuda:{torch.cuda.current_device()}", torch.bfloat16
    return "cpu", torch.float32

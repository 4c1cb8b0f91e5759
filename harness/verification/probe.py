"""The two questions that a model is verified with, about two clips that are rendered for it.

No benchmark is needed. The clips are real files, so reading videos is verified too. Answers do not
matter: a random model is verified like a trained one.
"""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
from jaxtyping import UInt8

from mapflow.results.contract.question import Clip, Prompt, PromptStyle, Question

SIDE, FRAMES, RATE = 128, 24, 8

PROMPTS: dict[PromptStyle, Prompt] = {
    "completion": Prompt(
        system="Carefully watch the video and select the best option.\n",
        stem_label="Question: ",
        options_label="\nOptions:\n",
        option="({letter}) {text}",
        option_separator="\n",
        instruction=" \nOnly give the best option.",
        answer_prefix="Best option:(",
    ),
    "chat": Prompt(
        system="",
        stem_label="Question: ",
        options_label="\nOptions:\n",
        option="({letter}) {text}",
        option_separator="\n",
        instruction="\nAnswer with the option's letter from the given choices directly"
        " and only give the best option.",
        answer_prefix="",
    ),
}


def probe_questions(folder: Path) -> tuple[Question, Question]:
    """Two questions of different length; their clips are written into `folder`."""
    first = _question(
        "moves",
        folder,
        "Which way does the square move?",
        ("left", "right", "up", "down"),
        target=1,
    )
    second = _question(
        "colour",
        folder,
        "At the end of the video the square is larger than at its beginning. Is it?",
        ("yes", "no"),
        target=0,
    )
    return first, second


def _question(
    name: str, folder: Path, stem: str, options: tuple[str, ...], target: int
) -> Question:
    file = folder / f"{name}.mp4"
    write_clip(file, seed=len(stem))
    return Question(
        question_id=name,
        video_id=name,
        task="verify",
        clip=Clip(str(file)),
        stem=stem,
        options=options,
        target=target,
        protocol="paper",
        prompts=PROMPTS,
    )


def write_clip(file: Path, seed: int) -> None:
    """Writes a square that crosses a coloured background: all frames differ; equal seeds give equal
    files.
    """
    with av.open(str(file), "w") as container:
        stream = container.add_stream("mpeg4", rate=RATE)
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        for number in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(_picture(number, seed), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _picture(number: int, seed: int) -> UInt8[np.ndarray, "side side 3"]:
    rng = np.random.default_rng(seed)
    ground, thing = rng.integers(0, 255, (2, 3))
    across = (
        np.linspace(0, 90, SIDE)[None, :, None]
        + np.linspace(0, 60, SIDE)[:, None, None]
        + 4 * number
    )
    pixels = (ground + across) % 256
    left, top = 4 * number, 20 + 2 * number
    pixels[top : top + 30, left : left + 30] = thing
    return pixels.astype(np.uint8)

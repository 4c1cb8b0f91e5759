"""Renders the benchmark's held-out questions: clips and one JSON file per subtask.

    python -m mapflow.tasks.motion.build --out tasks/motion/data

writes `json/<subtask>.json` and `video/<subtask>/<id>.mp4` in TVBench's layout, and
`held_out.json`, the fingerprints that training must avoid. The scenes depend on the seed alone; an
mp4's bytes also depend on the encoder.
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from mapflow.tasks.motion.render import FRAME_SIZE, batch_scenes, frame_times, render
from mapflow.tasks.motion.scenes import SUBTASKS, Ask, Scene, fingerprint, sample

DATA = Path(__file__).parent / "data"
N_FRAMES = 32
FRAMES_PER_SECOND = 8
QUESTIONS = 64
SHARED_CLIPS = 0.28
"""Share of a two-question subtask's clips that ask both."""


def held_out(seed: int, subtask: str, n_questions: int) -> list[tuple[Scene, list[Ask]]]:
    """Scenes with `n_questions` distinct questions, whose right options take all positions."""
    rng = random.Random(f"held out {seed} {subtask}")
    chosen: list[tuple[Scene, list[Ask]]] = []
    seen: set[str] = set()
    answered: dict[tuple[str, ...], int] = {}
    asked = 0
    while asked < n_questions:
        scene, asks = sample(rng, subtask)
        both = len(asks) == 2 and n_questions - asked > 1 and rng.random() < SHARED_CLIPS
        picked = list(asks) if both else [rng.choice(asks)]
        names = {fingerprint(scene, ask) for ask in picked}
        if names & seen or not _rarest(answered, picked):
            continue
        seen |= names
        for ask in picked:
            key = _answer_key(ask)
            answered[key] = answered.get(key, 0) + 1
        picked = [
            _at(ask, (asked + offset) % len(ask.options)) for offset, ask in enumerate(picked)
        ]
        chosen.append((scene, picked))
        asked += len(picked)
    return chosen


def _answer_key(ask: Ask) -> tuple[str, ...]:
    """The question and its answers, without the things' names."""
    return (ask.stem.split()[-1], *sorted(ask.options), ask.answer)


def _rarest(answered: dict[tuple[str, ...], int], picked: list[Ask]) -> bool:
    """Whether the counts of all answers to each kind of question stay within two of each other."""
    for ask in picked:
        rivals = [_answer_key(replace(ask, target=i)) for i in range(len(ask.options))]
        if answered.get(_answer_key(ask), 0) > 1 + min(answered.get(rival, 0) for rival in rivals):
            return False
    return True


def _at(ask: Ask, position: int) -> Ask:
    """The same question with the true option swapped to `position`."""
    options = list(ask.options)
    options[ask.target], options[position] = options[position], options[ask.target]
    return replace(ask, options=tuple(options), target=position)


def clip(scene: Scene) -> UInt8[Tensor, "frames size size 3"]:
    """The clip's frames, RGB."""
    frames = render(batch_scenes([scene]), frame_times(N_FRAMES)[None])[0]
    return frames.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def write_mp4(frames: UInt8[Tensor, "frames height width 3"], path: Path) -> None:
    """h264, yuv420p, `FRAMES_PER_SECOND`, visually lossless."""
    import av  # only this needs it: training runs without PyAV

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND, options={"crf": "17"})
        stream.width, stream.height, stream.pix_fmt = FRAME_SIZE, FRAME_SIZE, "yuv420p"
        for frame in frames.numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def build(out: Path, seed: int, n_questions: int) -> None:
    """Writes the whole benchmark below `out`."""
    fingerprints: list[str] = []
    for subtask in SUBTASKS:
        (out / "video" / subtask).mkdir(parents=True, exist_ok=True)
        rows = []
        for index, (scene, asks) in enumerate(held_out(seed, subtask, n_questions)):
            name = f"{subtask}_{index:03d}.mp4"
            write_mp4(clip(scene), out / "video" / subtask / name)
            for ask in asks:
                fingerprints.append(fingerprint(scene, ask))
                candidates = list(ask.options)
                rows.append(
                    {
                        "video": name,
                        "question": ask.stem,
                        "candidates": candidates,
                        "answer": ask.answer,
                    }
                )
        (out / "json").mkdir(exist_ok=True)
        _write_json(out / "json" / f"{subtask}.json", rows)
    _write_json(out / "held_out.json", {"seed": seed, "fingerprints": sorted(fingerprints)})


def held_out_fingerprints(data: Path = DATA) -> frozenset[str]:
    """The fingerprints of the committed questions."""
    return frozenset(json.loads((data / "held_out.json").read_text())["fingerprints"])


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Render the bundled motion benchmark.")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="folder to write, tasks/motion/data for the committed clips",
    )
    parser.add_argument("--seed", type=int, default=2025)
    parser.add_argument(
        "--questions", type=int, default=QUESTIONS, help="questions of each subtask"
    )
    arguments = parser.parse_args()
    build(arguments.out, arguments.seed, arguments.questions)


if __name__ == "__main__":
    main()

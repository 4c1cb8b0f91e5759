"""Records drawn on the frames that the model was shown: where rows look, which words patches look like.

Frames are read again, by number, and cropped as the family crops them. Where a family's tokens lie on no known place,
or a video cannot be read any more, that is said in a line and nothing is drawn. Runs no network.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8
from tqdm import tqdm

from mapflow.model_adapters.interventions import LayerSpan
from mapflow.model_adapters.video.reader import read_frames
from mapflow.model_adapters.video_llm import Prepared, VideoLLM
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import Clip
from mapflow.results.figures import (
    AttentionOverlay,
    LensOverlay,
    attention_overlay,
    difference_overlay,
    lens_overlay,
    lens_overlay_rows,
    overlay_rows,
    save_figure,
)
from mapflow.results.records.attention import AttentionRecord
from mapflow.results.records.lens import LensRecord
from mapflow.tasks.documents import Document
from mapflow.tasks.lmms_functions import question_of

FOLDER = "overlays"
LONGEST_SIDE = 320
"""Pixels of a picture at most: a figure shows it two inches wide."""


@dataclass(frozen=True)
class Ground:
    """What overlays of a question are laid on: `tokens[f][r][c]` is the place among the video tokens of the one that lies
    in that patch of `pictures[f]`, the frame that has the number `numbers[f]` in its video."""

    pictures: UInt8[np.ndarray, "frame height width 3"]
    numbers: tuple[int, ...]
    tokens: Int[np.ndarray, "frame row column"]


def draw_attention(
    model: VideoLLM,
    documents: Sequence[Document],
    records: Sequence[AttentionRecord],
    names: Sequence[str],
    layers: LayerSpan,
    folder: Path,
) -> None:
    """A figure a question, weights averaged over `layers`; under several interventions another of what each takes away
    from the first. Raises MapflowError where one cannot be written."""
    found = {record.key: record for record in records if record.error is None}
    for question, ground in _grounds(model, documents, {question for question, _ in found}):
        own = [found[question, name] for name in names if (question, name) in found]
        maps = {
            record.intervention: np.mean([record.weights[layer] for layer in ran], axis=0)[
                ground.tokens
            ]
            for record in own
            if (ran := _ran(record, len(record.weights), layers))
        }
        if not maps:
            continue
        title = f"{question}: {own[0].rows} → video, layers {layers}"
        overlay = AttentionOverlay(ground.pictures, ground.numbers, maps, title)
        path = folder / FOLDER / file_name(question)
        save_figure(
            attention_overlay(overlay),
            path.with_name(f"{path.name}_attention"),
            overlay_rows(overlay),
        )
        if len(maps) > 1:
            lost = path.with_name(f"{path.name}_difference")
            save_figure(difference_overlay(overlay), lost, overlay_rows(overlay))


def draw_lens(
    model: VideoLLM,
    documents: Sequence[Document],
    records: Sequence[LensRecord],
    names: Sequence[str],
    layers: LayerSpan,
    folder: Path,
) -> None:
    """A figure a question, intervention and one of `layers`: each patch's most probable word. Raises MapflowError where one
    cannot be written."""
    found = {record.key: record for record in records if record.error is None}
    for question, ground in _grounds(model, documents, {question for question, _ in found}):
        for name in names:
            record = found.get((question, name))
            if record is None:
                continue
            for layer in _ran(record, len(record.ids), layers):
                words = [(record.words or {})[str(token[0])] for token in record.ids[layer]]
                sure = np.array([token[0] for token in record.probabilities[layer]])
                overlay = LensOverlay(
                    ground.pictures,
                    ground.numbers,
                    tuple(
                        tuple(tuple(words[one] for one in row) for row in frame)
                        for frame in ground.tokens
                    ),
                    sure[ground.tokens],
                    f"{question}: {name}, layer {layer + 1}",
                )
                path = folder / FOLDER / f"{file_name(question)}_{file_name(name)}_layer{layer + 1}"
                save_figure(lens_overlay(overlay), path, lens_overlay_rows(overlay))


def file_name(text: str) -> str:
    """For a question or an intervention: what file systems mind is left out, and a digest then keeps names apart."""
    plain = re.sub(r"[^A-Za-z0-9.@=,+-]+", "_", text)[:80].strip(".")
    if plain and plain == text:
        return plain
    digest = hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()
    return f"{plain}-{digest[:8]}"


def question_ground(model: VideoLLM, prepared: Prepared) -> Ground:
    """Raises MapflowError where it is not known where tokens lie, and where the video cannot be read."""
    grid = model.token_grid(prepared)
    # of the frames that a segment stands for, the first; the last segment may have fewer
    numbers = prepared.frame_indices[:: -(-len(prepared.frame_indices) // len(grid))]
    frames = _frames(prepared.question.clip, numbers)
    view = model.view(*frames.shape[1:3])
    seen = frames[:, view.top : view.bottom, view.left : view.right]
    step = -(-max(seen.shape[1:3]) // LONGEST_SIDE)
    video = prepared.layout.positions("video").numpy()
    return Ground(seen[:, ::step, ::step], numbers, np.searchsorted(video, grid.numpy()))


def _ran(record: AttentionRecord | LensRecord, depth: int, layers: LayerSpan) -> range:
    """0-based, those of `layers` that ran: an early exit leaves the last ones out, which is said."""
    if layers.last > depth:
        tqdm.write(
            f"question {record.question_id}: {record.intervention} ran {depth} layers, so no later one is drawn",
            file=sys.stderr,
        )
    return range(layers.first - 1, min(layers.last, depth))


def _frames(clip: Clip, numbers: tuple[int, ...]) -> UInt8[np.ndarray, "frame height width 3"]:
    def recorded(
        n_frames: int, fps: float, n: int, start: float | None = None, end: float | None = None
    ) -> tuple[int, ...]:
        return numbers

    return read_frames(clip, recorded, len(numbers)).pixels


def _grounds(
    model: VideoLLM, documents: Sequence[Document], asked: set[str]
) -> Iterator[tuple[str, Ground]]:
    """Of every question that has records, in the documents' order; what cannot be drawn is said."""
    for doc in tqdm(
        [doc for doc in documents if doc["question_id"] in asked], desc="overlays", unit="q"
    ):
        try:
            ground = question_ground(model, model.prepare(question_of(doc)))
        except MapflowError as error:
            tqdm.write(f"no overlay of question {doc['question_id']}: {error}", file=sys.stderr)
            continue
        yield doc["question_id"], ground

"""Draws records on the frames that the model was shown: attention weights, and words of the lens.

Frames are read again by their numbers and cropped as the model family crops them; the model is not
run. If the place of a family's tokens is unknown, or a video is missing by now, one line says so
and nothing is drawn.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8

from mapflow.harness.analyses.registry import OVERLAY_FOLDER
from mapflow.model_adapters.inference.subject import Subject
from mapflow.model_adapters.interventions import LayerSpan
from mapflow.model_adapters.progress import progress
from mapflow.model_adapters.video.reader import read_frames
from mapflow.model_adapters.video_llm import Prepared, VideoLLM
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.files import file_name
from mapflow.results.contract.question import Clip
from mapflow.results.contract.visible_text import counted
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

LOG = logging.getLogger(__name__)
LONGEST_SIDE = 320
"""Most pixels of a picture: a figure shows it two inches wide."""


@dataclass(frozen=True)
class OverlayCanvas:
    """Frames and places of video tokens for the overlays of one question.

    Attributes:
        pictures, numbers: the frames shown, and their numbers in the video.
        tokens: `tokens[f][r][c]` is the index, among the video tokens, of the token at that patch
            of frame f.
    """

    pictures: UInt8[np.ndarray, "frame height width 3"]
    numbers: tuple[int, ...]
    tokens: Int[np.ndarray, "frame row column"]


def draw_attention(
    subject: Subject,
    records: Sequence[AttentionRecord],
    names: Sequence[str],
    layers: LayerSpan,
    folder: Path,
) -> None:
    """One figure per question with weights averaged over `layers`.

    With several interventions, a second figure shows what each takes away from the first. Raises
    MapflowError if a file cannot be written.
    """
    found = {record.key: record for record in records if record.measured}
    for question, canvas in _canvases(subject, {question for question, _ in found}, folder):
        own = [found[question, name] for name in names if (question, name) in found]
        maps = {
            record.intervention: np.mean([record.weights[layer] for layer in ran], axis=0)[
                canvas.tokens
            ]
            for record in own
            if (ran := _ran(record, len(record.weights), layers))
        }
        if not maps:
            continue
        title = f"{question}: {own[0].rows} → video, layers {layers}"
        overlay = AttentionOverlay(canvas.pictures, canvas.numbers, maps, title)
        path = folder / OVERLAY_FOLDER / file_name(question)
        save_figure(
            attention_overlay(overlay),
            path.with_name(f"{path.name}_attention"),
            overlay_rows(overlay),
        )
        if len(maps) > 1:
            lost = path.with_name(f"{path.name}_difference")
            save_figure(difference_overlay(overlay), lost, overlay_rows(overlay))


def draw_lens(
    subject: Subject,
    records: Sequence[LensRecord],
    names: Sequence[str],
    layers: LayerSpan,
    folder: Path,
) -> None:
    """One figure per question, intervention and layer of `layers`: the most probable word of each
    patch.

    Raises MapflowError if a file cannot be written.
    """
    found = {record.key: record for record in records if record.measured}
    for question, canvas in _canvases(subject, {question for question, _ in found}, folder):
        for name in names:
            record = found.get((question, name))
            if record is None:
                continue
            for layer in _ran(record, len(record.ids), layers):
                words = [(record.words or {})[str(token[0])] for token in record.ids[layer]]
                sure = np.array([token[0] for token in record.probabilities[layer]])
                overlay = LensOverlay(
                    canvas.pictures,
                    canvas.numbers,
                    tuple(
                        tuple(tuple(words[one] for one in row) for row in frame)
                        for frame in canvas.tokens
                    ),
                    sure[canvas.tokens],
                    f"{question}: {name}, layer {layer + 1}",
                )
                path = (
                    folder
                    / OVERLAY_FOLDER
                    / f"{file_name(question)}_{file_name(name)}_layer{layer + 1}"
                )
                save_figure(lens_overlay(overlay), path, lens_overlay_rows(overlay))


def question_canvas(model: VideoLLM, prepared: Prepared) -> OverlayCanvas:
    """Raises MapflowError if the place of the tokens is unknown or the video cannot be read."""
    grid = model.token_grid(prepared)
    # the first of the frames that a segment combines; the last segment may have fewer
    numbers = prepared.frame_indices[:: -(-len(prepared.frame_indices) // len(grid))]
    frames = _frames(prepared.question.clip, numbers)
    view = model.view(*frames.shape[1:3])
    visible = frames[:, view.top : view.bottom, view.left : view.right]
    step = -(-max(visible.shape[1:3]) // LONGEST_SIDE)
    video = prepared.layout.positions("video").numpy()
    return OverlayCanvas(visible[:, ::step, ::step], numbers, np.searchsorted(video, grid.numpy()))


def _ran(record: AttentionRecord | LensRecord, depth: int, layers: LayerSpan) -> range:
    """The 0-based layers of `layers` that ran; prints a line if an early exit skips some."""
    if layers.last > depth:
        LOG.info(
            "question %s: %s ran %s, so no later one is drawn",
            record.question_id,
            record.intervention,
            counted(depth, "layer"),
        )
    return range(layers.first - 1, min(layers.last, depth))


def _frames(clip: Clip, numbers: tuple[int, ...]) -> UInt8[np.ndarray, "frame height width 3"]:
    def recorded(
        n_frames: int, fps: float, n: int, start: float | None = None, end: float | None = None
    ) -> tuple[int, ...]:
        return numbers

    return read_frames(clip, recorded, len(numbers)).pixels


def _canvases(
    subject: Subject, drawn: set[str], folder: Path
) -> Iterator[tuple[str, OverlayCanvas]]:
    """The canvas of each question whose id is in `drawn`; prints why a question cannot be drawn."""
    chosen = [question for question in subject.questions if question.question_id in drawn]
    for question in progress(chosen, title="overlays"):
        try:
            canvas = question_canvas(subject.model, subject.model.prepare(question))
        except MapflowError as error:
            LOG.warning("no overlay of question %s: %s", question.question_id, error)
            continue
        (folder / OVERLAY_FOLDER).mkdir(exist_ok=True)
        yield question.question_id, canvas

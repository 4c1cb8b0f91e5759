"""Attention weights of patches, drawn over the frames of the video.

One row per intervention, one column per frame, all on one scale. A second figure shows the
differences between the first intervention, the baseline, and each other one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, UInt8

from mapflow.results.contract.errors import MapflowError
from mapflow.results.figures.panels import wrapped
from mapflow.results.figures.pictures import draw_heat, top_of_scale

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INCHES = 1.35
"""Width of a frame on the page."""

Maps = Float[np.ndarray, "frame row column"]


@dataclass(frozen=True)
class AttentionOverlay:
    """The attention of one question.

    pictures: the frames as the model sees them; numbers: their numbers in the video file.
    maps: weights from 0 to 1 of the patches that tile each picture, by intervention; the
        baseline is first.
    """

    pictures: UInt8[np.ndarray, "frame height width 3"]
    numbers: tuple[int, ...]
    maps: Mapping[str, Maps]
    title: str = ""


def attention_overlay(overlay: AttentionOverlay) -> Figure:
    """Weights under each intervention. Raises MapflowError without maps."""
    if not overlay.maps:
        raise MapflowError("an attention overlay needs at least one intervention")
    return _figure(overlay, overlay.maps, "attention to a patch, %", signed=False)


def difference_overlay(overlay: AttentionOverlay) -> Figure:
    """Attention that patches lose (positive) or gain under each intervention but the first.

    Raises MapflowError for a single intervention.
    """
    return _figure(
        overlay,
        differences(overlay),
        "attention lost (blue: gained), points",
        signed=True,
    )


def differences(overlay: AttentionOverlay) -> dict[str, Maps]:
    """Weights under the first intervention minus those under each other one.

    Raises MapflowError for a single intervention.
    """
    (base, ours), *others = overlay.maps.items()
    if not others:
        raise MapflowError(f"a difference needs a second intervention; only {base!r} was given")
    return {f"{base} − {name}": ours - theirs for name, theirs in others}


def overlay_rows(overlay: AttentionOverlay) -> list[dict[str, Any]]:
    """The figure's data: one row per intervention and patch.

    Rows and columns count from 0 at the top left. `weight` is from 0 to 1, `lost` is the weight
    under the first intervention minus it.
    """
    base = next(iter(overlay.maps.values()))
    return [
        {
            "intervention": name,
            "frame": number,
            "row": row,
            "column": column,
            "weight": float(f"{weights[place, row, column]:.6g}"),
            "lost": float(f"{base[place, row, column] - weights[place, row, column]:.6g}"),
        }
        for name, weights in overlay.maps.items()
        for place, number in enumerate(overlay.numbers)
        for row, column in np.ndindex(*weights.shape[1:])
    ]


def _figure(
    overlay: AttentionOverlay, maps: Mapping[str, Maps], label: str, signed: bool
) -> Figure:
    from matplotlib.figure import Figure

    height, width = overlay.pictures.shape[1:3]
    n_frames = len(overlay.pictures)
    panel_height = INCHES * height / width + 0.2
    figure = Figure(
        figsize=(
            INCHES * n_frames + 1.4,
            panel_height * len(maps) + 0.5 * bool(overlay.title) + 0.3,
        ),
        layout="constrained",
    )
    grid = figure.subplots(len(maps), n_frames, squeeze=False)
    most = top_of_scale(np.concatenate([one.ravel() for one in maps.values()]))
    image = None
    for row, (name, weights) in enumerate(maps.items()):
        for column, (frame, heat, panel) in enumerate(
            zip(overlay.pictures, weights, grid[row], strict=True)
        ):
            image = draw_heat(panel, frame, 100 * heat, 100 * most, signed)
            share = _percent(heat, signed)
            panel.set_title(
                f"frame {overlay.numbers[column]}: {share}" if row == 0 else share,
                fontsize=7,
                pad=2,
            )
        title = f"{wrapped(name.replace('->', ' → '), 18)}\n{_percent(weights, signed)}"
        grid[row][0].set_ylabel(title, fontsize=7, parse_math=False)
    assert image is not None
    bar = figure.colorbar(
        image, ax=list(figure.axes), extend="both" if signed else "max", fraction=0.03, pad=0.01
    )
    bar.set_label(label, fontsize=7)
    bar.ax.tick_params(labelsize=7)
    if overlay.title:
        figure.suptitle(wrapped(overlay.title, 16 * max(n_frames, 3)), fontsize=8, parse_math=False)
    return figure


def _percent(weights: Float[np.ndarray, "*dims"], signed: bool) -> str:
    return f"{100 * weights.sum():{'+' if signed else ''}.2f} %"

"""Places of video tokens on a frame, for overlays.

A family gives the rows and columns of one frame's tokens and the part of the frame that the model
sees.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from mapflow.model_adapters.interventions import TokenLayout
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.visible_text import counted


class View(NamedTuple):
    """The part of a source frame that a model sees, in pixels; `bottom` and `right` are
    exclusive."""

    top: int
    left: int
    bottom: int
    right: int


def token_grid(
    layout: TokenLayout,
    input_ids: Int[Tensor, " n"],
    placeholder_ids: Int[Tensor, " id"],
    rows: int,
    columns: int,
    trailing: int = 0,
) -> Int[Tensor, "frame row column"]:
    """Positions of each frame's video tokens, which come row by row; text within a frame (its time)
    is skipped.

    `trailing` placeholders after the last frame are not part of the grid. Raises MapflowError if a
    frame has another number of tokens than rows × columns.
    """
    shown = torch.isin(input_ids, placeholder_ids)
    size = rows * columns
    grids = []
    for frame in range(layout.n_frames):
        own = layout.positions(f"frame[{frame}]")
        own = own[shown[own]]
        if frame == layout.n_frames - 1 and len(own) == size + trailing:
            own = own[:size]
        if len(own) != size:
            raise MapflowError(
                f"frame[{frame}] has {counted(len(own), 'token')}, not {rows} × {columns}, so"
                f" where they lie"
                " on the picture is not known"
            )
        grids.append(own.view(rows, columns))
    return torch.stack(grids)


def centred_view(
    height: int, width: int, edge: int | tuple[int, int], crop: tuple[int, int]
) -> View:
    """The crop in the middle of frames of `height` × `width` pixels.

    Frames are first resized until the short edge, or (height, width), equals `edge`; `crop` is in
    resized pixels. Exact to one pixel, because resizing rounds.
    """
    resized = (
        edge
        if isinstance(edge, tuple)
        else tuple(edge * side / min(height, width) for side in (height, width))
    )
    kept = [
        min(side, round(side * part / size))
        for side, part, size in zip((height, width), crop, resized, strict=True)
    ]
    top, left = (height - kept[0]) // 2, (width - kept[1]) // 2
    return View(top, left, top + kept[0], left + kept[1])

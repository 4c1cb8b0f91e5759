"""Where video tokens lie on the picture: what overlays need to know of a family, and nothing more.

Knows no network: a family says how many rows and columns a frame's tokens make and how its frames are cropped.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from mapflow.model_adapters.interventions import TokenLayout
from mapflow.results.contract.errors import MapflowError


class View(NamedTuple):
    """The part of a source frame that a model sees, in the frame's pixels; `bottom` and `right` lie behind it."""

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
    """Positions of each frame's tokens, which come row by row; text in a frame (its time) is no part of the picture.

    `trailing` placeholders after the last frame's belong to no place. Raises MapflowError for another number of tokens.
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
                f"frame[{frame}] has {len(own)} tokens, not {rows} × {columns}, so where they lie on the picture is not known"
            )
        grids.append(own.view(rows, columns))
    return torch.stack(grids)


def centred_view(
    height: int, width: int, edge: int | tuple[int, int], crop: tuple[int, int]
) -> View:
    """Of frames that are resized until the short edge, or (height, width), is `edge`, and then cropped to `crop` in the
    middle; within a pixel, as resizing rounds."""
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

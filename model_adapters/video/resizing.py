"""Converts frames to the pixel values of the paper's LLaVA and InternVL models, bit for bit.

Frames are resized twice, each time with rounding to bytes: first to a working size with a longest
edge of about 640, then to the resolution of the vision tower. The first size follows the float
arithmetic of the authors' code, which sometimes loses a column. Then follow CLIP's centre crop and
normalisation. Uses PIL and numpy only, because the image processors of transformers differ between
releases in the last digit.

`resize_window` saves work where only a window of the resized picture is used. Each pixel of a
resized picture is a weighted sum of a few pixels around its place. If both sides shrink by the same
integer factor, the weights are the same at every place and are computed from exactly representable
numbers. Then a part of the picture that begins at multiples of the factor gives the same bits as
the whole, except near its own edges. This also requires that Pillow resizes the same side first,
since it rounds to bytes in between. From Pillow 13 on, that order depends on the sizes. So each
combination of sizes is tested once with noise, and pictures are resized whole where the results
differ.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.files import read_json

LONGEST_WORKING_EDGE = 640
Span = tuple[int, int]
"""Half-open range [start, stop) of rows or columns."""

REACH = 3
"""Radius of Pillow's widest filter, Lanczos, in pixels of the smaller picture."""

MIN_WINDOW_PIXELS = 64 * 64
"""Smaller windows are not worth the effort, and their noise might not reveal a difference."""


@dataclass(frozen=True)
class ImagePreprocessing:
    """The settings of a CLIP-like preprocessor_config.json. Sizes are (height, width) in pixels.

    `edge` is the short edge after the second resize, or the exact size if the file gives one.
    """

    edge: int | tuple[int, int]
    crop: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    rescale: float = 1 / 255
    resample: int = Image.Resampling.BICUBIC

    @classmethod
    def from_folder(cls, folder: Path) -> ImagePreprocessing:
        """From a checkpoint folder. Raises MapflowError for a missing file or unknown setting."""
        file = folder / "processor_config.json"
        if file.is_file() and read_json(file).get("center_pad"):
            raise MapflowError(
                f"{file} asks for center_pad, which the released models do not use;"
                " it is not supported"
            )
        file = folder / "preprocessor_config.json"
        return cls.from_config(read_json(file), str(file))

    @classmethod
    def from_config(cls, config: Mapping[str, Any], where: str) -> ImagePreprocessing:
        """From the file's contents. Raises MapflowError naming `where` for unsupported ones."""
        for step in ("do_resize", "do_center_crop", "do_rescale", "do_normalize"):
            if not config.get(step, True):
                raise MapflowError(
                    f"{where} switches {step} off, which this preprocessing cannot do"
                )
        for key in ("size", "crop_size", "image_mean", "image_std"):
            if key not in config:
                raise MapflowError(f"{where} has no {key!r}")
        size, crop = config["size"], config["crop_size"]
        if isinstance(size, Mapping):
            edge = (
                size["shortest_edge"]
                if "shortest_edge" in size
                else (size["height"], size["width"])
            )
        else:
            edge = size
        return cls(
            edge=edge,
            crop=(crop["height"], crop["width"]) if isinstance(crop, Mapping) else (crop, crop),
            mean=tuple(config["image_mean"]),
            std=tuple(config["image_std"]),
            rescale=config.get("rescale_factor", 1 / 255),
            resample=config.get("resample", Image.Resampling.BICUBIC),
        )

    def __call__(
        self, frames: UInt8[np.ndarray, "frames height width 3"]
    ) -> Float[Tensor, "frames 3 crop_height crop_width"]:
        """Pixel values (float32) of RGB frames."""
        cropped = np.stack([self._cropped(frame) for frame in frames])
        return torch.from_numpy(normalized(cropped, self.mean, self.std, self.rescale))

    def _cropped(
        self, frame: UInt8[np.ndarray, "height width 3"]
    ) -> UInt8[np.ndarray, "crop_height crop_width 3"]:
        """Resizes twice and crops. The first resize covers only what the crop shows."""
        height, width = working_size(frame.shape[0], frame.shape[1], self._short_edge)
        first = _scaled((frame.shape[0], frame.shape[1]), min(height, width))
        size = min(first[0], height), min(first[1], width)  # loses a row or a column
        second = _scaled(size, self.edge) if isinstance(self.edge, int) else self.edge
        rows, columns = self._crop(second)
        seen = source_span(size[0], second[0], rows), source_span(size[1], second[1], columns)
        working = resize_window(frame, first, Image.Resampling.BICUBIC, *seen)[:height, :width]
        resized = Image.fromarray(working).resize(
            (second[1], second[0]), Image.Resampling(self.resample)
        )
        return np.asarray(resized)[slice(*rows), slice(*columns)]

    @property
    def _short_edge(self) -> int:
        return self.edge if isinstance(self.edge, int) else self.edge[0]

    def _crop(self, size: tuple[int, int]) -> tuple[Span, Span]:
        """Rows and columns of the centre crop of a frame of this (height, width)."""
        top, left = ((length - wanted) // 2 for length, wanted in zip(size, self.crop, strict=True))
        if top < 0 or left < 0:
            raise MapflowError(f"crop_size {self.crop} is larger than the resized frame {size}")
        return (top, top + self.crop[0]), (left, left + self.crop[1])


def normalized(
    frames: UInt8[np.ndarray, "frames height width 3"],
    mean: Sequence[float],
    std: Sequence[float],
    rescale: float,
) -> Float[np.ndarray, "frames 3 height width"]:
    """(value · rescale − mean) / std, rounded to float32 as transformers' slow processors do."""
    # A byte has 256 values, so a table replaces arithmetic on every pixel.
    levels = (np.arange(256, dtype=np.uint8) * rescale).astype(np.float32)
    means, stds = (np.array(each, dtype=np.float32) for each in (mean, std))
    table = (levels[:, None] - means) / stds
    values = np.empty((len(frames), 3, *frames.shape[1:3]), np.float32)
    for channel in range(3):  # mode="clip" avoids a copy of `values`; no index is out of range
        np.take(table[:, channel].copy(), frames[..., channel], out=values[:, channel], mode="clip")
    return values


def working_size(height: int, width: int, at_least: int) -> tuple[int, int]:
    """(height, width) after the first resize, for a longest edge of at most 640.

    The short edge is at least `at_least`, and frames are not enlarged beyond that. The order of the
    divisions is that of the authors' code, since it determines the rounding.
    """
    short, long = sorted((height, width))
    aspect = long / short
    edge = max(at_least, min(short, int(min(LONGEST_WORKING_EDGE, long) / aspect)))
    longer = min(int(edge * aspect), int(edge * long / short))
    return (longer, edge) if height > width else (edge, longer)


def _scaled(size: tuple[int, int], edge: int) -> tuple[int, int]:
    """(height, width) with a short edge of `edge`."""
    height, width = size
    short, long = sorted(size)
    longer = int(edge * long / short)
    return (longer, edge) if width <= height else (edge, longer)


def resize_window(
    picture: UInt8[np.ndarray, "height width 3"],
    size: tuple[int, int],
    resample: Image.Resampling,
    rows: Span,
    columns: Span,
) -> UInt8[np.ndarray, "new_height new_width 3"]:
    """Resizes `picture` to `size` (height, width).

    Pixels of the result outside `rows` and `columns` are undefined.
    """
    if _parts_agree((picture.shape[0], picture.shape[1]), size, resample, rows, columns):
        return _from_part(picture, size, resample, rows, columns)
    return _whole(picture, size, resample)


def source_span(length: int, new_length: int, wanted: Span) -> Span:
    """The source pixels along one side that influence the `wanted` pixels, and a few more."""
    scale = length / new_length
    reach = REACH * max(scale, 1.0) + 1
    first, last = (wanted[0] + 0.5) * scale, (wanted[1] - 0.5) * scale
    return max(0, math.floor(first - reach)), min(length, math.ceil(last + reach))


def _widened(wanted: Span, length: int) -> Span:
    """Adds the pixels at either end whose weights a part cannot reproduce."""
    return max(0, wanted[0] - REACH - 1), min(length, wanted[1] + REACH + 1)


@lru_cache(maxsize=1024)
def _parts_agree(
    source: tuple[int, int],
    size: tuple[int, int],
    resample: Image.Resampling,
    rows: Span,
    columns: Span,
) -> bool:
    """Whether resizing a part is less work than the whole and gives the same pixels."""
    factor, rest = divmod(source[0], size[0])
    is_whole = (_widened(rows, size[0]), _widened(columns, size[1])) == (
        (0, size[0]),
        (0, size[1]),
    )
    large_enough = (rows[1] - rows[0]) * (columns[1] - columns[0]) >= MIN_WINDOW_PIXELS
    if rest or source[1] != size[1] * factor or is_whole or not large_enough:
        return False
    noise = np.random.default_rng(0).integers(0, 256, (*source, 3), np.uint8)
    seen = slice(*rows), slice(*columns)
    part, whole = _from_part(noise, size, resample, rows, columns), _whole(noise, size, resample)
    return np.array_equal(part[seen], whole[seen])


def _from_part(
    picture: UInt8[np.ndarray, "height width 3"],
    size: tuple[int, int],
    resample: Image.Resampling,
    rows: Span,
    columns: Span,
) -> UInt8[np.ndarray, "new_height new_width 3"]:
    factor = picture.shape[0] // size[0]
    (top, bottom), (left, right) = _widened(rows, size[0]), _widened(columns, size[1])
    part = picture[top * factor : bottom * factor, left * factor : right * factor]
    result = np.zeros((*size, 3), np.uint8)
    result[top:bottom, left:right] = _whole(
        np.ascontiguousarray(part), (bottom - top, right - left), resample
    )
    return result


def _whole(
    picture: UInt8[np.ndarray, "height width 3"], size: tuple[int, int], resample: Image.Resampling
) -> UInt8[np.ndarray, "new_height new_width 3"]:
    return np.asarray(Image.fromarray(picture).resize((size[1], size[0]), resample))

"""Frames to pixel values, bit for bit as the paper's LLaVA and InternVL models saw them.

Two resizes in a row, each rounding to bytes: one to a working size with a longest edge of about 640 (with the float
arithmetic of the released code, which sometimes loses a column), one to the tower's resolution; then the centre crop
and the normalisation of CLIP. Written on PIL and numpy alone, because the image processors of transformers differ from
release to release in the last digit. Knows no network and no video.
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
"""Rows or columns: the first, and the one after the last."""

REACH = 3
"""Pixels to either side that Pillow's widest filter, Lanczos, looks at: of the picture where it grows, of the result elsewhere."""

TELLING = 64 * 64
"""Pixels of a window: with so many of noise, some would differ if the order did. Less is not worth the trouble."""


@dataclass(frozen=True)
class ImagePreprocessing:
    """What a preprocessor_config.json of CLIP's kind says. Sizes are pixels, (height, width).

    `edge` is the short edge after the second resize, or the exact size where the file gives one.
    """

    edge: int | tuple[int, int]
    crop: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    rescale: float = 1 / 255
    resample: int = Image.Resampling.BICUBIC

    @classmethod
    def from_folder(cls, folder: Path) -> ImagePreprocessing:
        """What a checkpoint folder says. Raises MapflowError for files that are missing or ask for something else."""
        file = folder / "processor_config.json"
        if file.is_file() and read_json(file).get("center_pad"):
            raise MapflowError(
                f"{file} asks for center_pad, which the released models do not use; it is not supported"
            )
        file = folder / "preprocessor_config.json"
        return cls.from_config(read_json(file), str(file))

    @classmethod
    def from_config(cls, config: Mapping[str, Any], where: str) -> ImagePreprocessing:
        """From the file's contents. Raises MapflowError naming `where` for a missing entry or a step switched off."""
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
        """Float32 pixel values of RGB frames."""
        cropped = np.stack([self._cropped(frame) for frame in frames])
        return torch.from_numpy(normalized(cropped, self.mean, self.std, self.rescale))

    def _cropped(
        self, frame: UInt8[np.ndarray, "height width 3"]
    ) -> UInt8[np.ndarray, "crop_height crop_width 3"]:
        """Resized twice and cropped; of the first and larger resize, only what the crop will show."""
        height, width = working_size(frame.shape[0], frame.shape[1], self._short_edge)
        first = _scaled((frame.shape[0], frame.shape[1]), min(height, width))
        size = min(first[0], height), min(first[1], width)  # a row or a column may be lost
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
        """The rows and the columns in the middle of a frame of this (height, width)."""
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
    """(value · rescale − mean) / std, rounded to float32 where transformers' slow processors round."""
    # One table instead of arithmetic on every pixel: a byte has 256 values.
    levels = (np.arange(256, dtype=np.uint8) * rescale).astype(np.float32)
    means, stds = (np.array(each, dtype=np.float32) for each in (mean, std))
    table = (levels[:, None] - means) / stds
    values = np.empty((len(frames), 3, *frames.shape[1:3]), np.float32)
    for channel in range(3):  # "clip" cannot happen; without it numpy would write to a copy first
        np.take(table[:, channel].copy(), frames[..., channel], out=values[:, channel], mode="clip")
    return values


def working_size(height: int, width: int, at_least: int) -> tuple[int, int]:
    """(height, width) after the first resize: the short edge that goes with a longest edge of 640, never smaller than
    `at_least` and never enlarged beyond that. The order of divisions is the released code's: it decides the rounding.
    """
    short, long = sorted((height, width))
    aspect = long / short
    edge = max(at_least, min(short, int(min(LONGEST_WORKING_EDGE, long) / aspect)))
    longer = min(int(edge * aspect), int(edge * long / short))
    return (longer, edge) if height > width else (edge, longer)


def _scaled(size: tuple[int, int], edge: int) -> tuple[int, int]:
    """(height, width) with the short edge at `edge`."""
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
    """`picture` resized to `size` (height, width); what lies outside `rows` and `columns` of the result is anything."""
    if _parts_agree((picture.shape[0], picture.shape[1]), size, resample, rows, columns):
        return _from_part(picture, size, resample, rows, columns)
    return _whole(picture, size, resample)


def source_span(length: int, new_length: int, wanted: Span) -> Span:
    """The pixels of a side that have any weight in the wanted ones of its resized form, and a few more."""
    scale = length / new_length
    reach = REACH * max(scale, 1.0) + 1
    first, last = (wanted[0] + 0.5) * scale, (wanted[1] - 0.5) * scale
    return max(0, math.floor(first - reach)), min(length, math.ceil(last + reach))


def _widened(wanted: Span, length: int) -> Span:
    """By as many pixels as lack weights at the ends of a part."""
    return max(0, wanted[0] - REACH - 1), min(length, wanted[1] + REACH + 1)


@lru_cache(maxsize=1024)
def _parts_agree(
    source: tuple[int, int],
    size: tuple[int, int],
    resample: Image.Resampling,
    rows: Span,
    columns: Span,
) -> bool:
    """A part is less than all, its weights are those of the whole, and so is the order of its sides."""
    factor, rest = divmod(source[0], size[0])
    all_of_it = (_widened(rows, size[0]), _widened(columns, size[1])) == (
        (0, size[0]),
        (0, size[1]),
    )
    telling = (rows[1] - rows[0]) * (columns[1] - columns[0]) >= TELLING
    if rest or source[1] != size[1] * factor or all_of_it or not telling:
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

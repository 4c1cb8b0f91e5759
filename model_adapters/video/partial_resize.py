"""A picture resized by Pillow where only a window of the result matters: the same bits there, for less work.

Every pixel of a result is a weighted sum of few pixels around its place. Where both sides shrink by the same whole factor,
the weights are the same at every place and computed from numbers that floating point holds exactly. So a part of the picture
that begins at multiples of the factor gives the same bits as all of it, except near its own ends, where pixels are missing,
and provided that Pillow takes the same side first, as it rounds to bytes in between. Since Pillow 13 that depends on sizes, by
a rule of its own: so noise is resized either way, once for each size, and where that differs pictures are resized whole.

Knows nothing about models and videos.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from jaxtyping import UInt8
from PIL import Image

Span = tuple[int, int]
"""Rows or columns: the first, and the one after the last."""

REACH = 3
"""Pixels to either side that Pillow's widest filter, Lanczos, looks at: of the picture where it grows, of the result elsewhere."""


TELLING = 64 * 64
"""Pixels of a window: with so many of noise, some would differ if the order did. Less is not worth the trouble."""


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

"""From frames to patches, bit for bit as in the authors' VideoLLaMA3 processor.

Frames keep their aspect ratio: both sides become multiples of `patch · merge` pixels, within a
token budget for all frames. The `merge` × `merge` patches of one video token are consecutive.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from mapflow.model_adapters.video.resizing import normalized
from mapflow.results.contract.errors import MapflowError


@dataclass(frozen=True)
class PatchPreprocessing:
    """The settings of a preprocessor_config.json of VideoLLaMA3.

    Attributes:
        patch: side of a patch, pixels.
        merge: side, in patches, of the square that becomes one video token.
        min_tokens: fewest video tokens of a frame.
        max_tokens: most video tokens of a clip.
        frame_tokens: most video tokens of a clip, divided by its frames; None for no such limit.
    """

    patch: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    merge: int = 2
    min_tokens: int = 16
    max_tokens: int = 16384
    frame_tokens: int | None = None
    rescale: float = 1 / 255
    resample: int = Image.Resampling.BICUBIC

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], where: str, merge: int = 2
    ) -> PatchPreprocessing:
        """From the file's contents. Raises MapflowError naming `where` for a missing entry or a
        step switched off."""
        for step in ("do_resize", "do_rescale", "do_normalize"):
            if not config.get(step, True):
                raise MapflowError(f"{where} switches {step} off, which is not supported")
        for key in ("image_mean", "image_std", "patch_size"):
            if key not in config:
                raise MapflowError(f"{where} has no {key!r}")
        return cls(
            patch=config["patch_size"],
            mean=tuple(config["image_mean"]),
            std=tuple(config["image_std"]),
            merge=merge,
            min_tokens=config.get("min_tokens", 16),
            max_tokens=config.get("max_tokens", 16384),
            rescale=config.get("rescale_factor", 1 / 255),
            resample=config.get("resample", Image.Resampling.BICUBIC),
        )

    def __call__(
        self, frames: UInt8[np.ndarray, "frames height width 3"]
    ) -> tuple[Float[Tensor, "patches values"], tuple[int, int, int]]:
        """Float32 values of each patch (3 · patch · patch of them), and (frames, rows, columns) of
        patches."""
        height, width = self.target_size(*frames.shape[:3])
        resample = Image.Resampling(self.resample)
        resized = np.stack(
            [
                np.asarray(Image.fromarray(frame).resize((width, height), resample))
                for frame in frames
            ]
        )
        values = torch.from_numpy(normalized(resized, self.mean, self.std, self.rescale))
        rows, columns = height // self.patch, width // self.patch
        squares = values.unflatten(3, (-1, self.merge, self.patch)).unflatten(
            2, (-1, self.merge, self.patch)
        )
        # frame, channel, (square, patch, pixel) vertically, (square, patch, pixel) horizontally
        patches = squares.permute(0, 2, 5, 3, 6, 1, 4, 7)
        return patches.reshape(len(frames) * rows * columns, -1), (len(frames), rows, columns)

    def target_size(self, n_frames: int, height: int, width: int) -> tuple[int, int]:
        """(height, width) in pixels that every frame of a clip is resized to."""
        step = self.patch * self.merge
        most = min(self.max_tokens, (self.frame_tokens or self.max_tokens) * n_frames)
        at_least, at_most = self.min_tokens * step**2, most * step**2 // n_frames
        new_height, new_width = round(height / step) * step, round(width / step) * step
        if new_height * new_width > at_most:
            shrink = math.sqrt(height * width / at_most)
            new_height = math.floor(height / shrink / step) * step
            new_width = math.floor(width / shrink / step) * step
        if new_height * new_width < at_least:
            grow = math.sqrt(at_least / (height * width))
            new_height = math.ceil(height * grow / step) * step
            new_width = math.ceil(width * grow / step) * step
        return new_height, new_width

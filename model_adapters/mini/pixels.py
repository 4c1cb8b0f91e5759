"""Renders scenes to pixel values: the frames that the adapter samples, with artefacts.

Frames are rendered at the size of the clips and reduced as in the preprocessor (bicubic,
anti-aliased). Noise, coarse blocks and a slight colour shift take the place of h264 artefacts.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from mapflow.model_adapters.mini.network import CLIP_MEAN, CLIP_STD, IMAGE_SIZE
from mapflow.model_adapters.mini.planted import N_FRAMES
from mapflow.model_adapters.video.sampling import segment_midpoints
from mapflow.tasks.motion.build import FRAMES_PER_SECOND
from mapflow.tasks.motion.build import N_FRAMES as CLIP_FRAMES
from mapflow.tasks.motion.render import FRAME_SIZE, SceneBatch, render

NOISE, BLOCK_NOISE, COLOR_SHIFT = 2.5, 1.5, 3.0
BLOCK = 4


def sampled_times() -> Float[Tensor, " frames"]:
    """Times of the sampled frames as shares of a bundled clip (`segment_midpoints`)."""
    indices = segment_midpoints(CLIP_FRAMES, float(FRAMES_PER_SECOND), N_FRAMES)
    return torch.tensor(indices) / (CLIP_FRAMES - 1)


def reduction(size: int = IMAGE_SIZE) -> Float[Tensor, "size source"]:
    """The matrix that resizes one axis (bicubic, anti-aliased)."""
    return interpolate(
        torch.eye(FRAME_SIZE)[None, None], (size, FRAME_SIZE), mode="bicubic", antialias=True
    )[0, 0]


def look(
    scenes: SceneBatch,
    times: Float[Tensor, " frames"],
    reduce: Float[Tensor, "size source"],
    artefacts: bool,
) -> Float[Tensor, "scenes frames 3 size size"]:
    """Normalised frames at `times`.

    `artefacts` adds noise, blocks and colour shifts, and moves times by up to half a frame of the
    clip.
    """
    at = times.expand(len(scenes), -1)
    if artefacts:
        at = (at + (torch.rand_like(at) - 0.5) / (CLIP_FRAMES - 1)).clamp(0, 1)
    image = reduce @ render(scenes, at) @ reduce.T
    if artefacts:
        shape = (*image.shape[:3], IMAGE_SIZE // BLOCK, IMAGE_SIZE // BLOCK)
        blocks = torch.randn(shape, device=image.device) * BLOCK_NOISE
        image = image + blocks.repeat_interleave(BLOCK, -1).repeat_interleave(BLOCK, -2)
        image = image + torch.randn_like(image) * NOISE
        image = image + torch.randn(len(image), 1, 3, 1, 1, device=image.device) * COLOR_SHIFT
    mean, std = (
        torch.tensor(values, device=image.device)[:, None, None] * 255
        for values in (CLIP_MEAN, CLIP_STD)
    )
    return (image.clamp(0, 255) - mean) / std

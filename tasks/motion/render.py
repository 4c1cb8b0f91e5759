"""Renders scenes to pixels at any times, on any device.

One implementation serves the mp4 clips (CPU) and training (GPU, many scenes at once). It is a pure
function of scenes and continuous time, so every frame rate and every choice of frames shows the
same clip. Edges are anti-aliased by their distance to the pixel's centre.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mapflow.tasks.motion.scenes import BACKGROUNDS, COLORS, MAX_THINGS, SHAPES, Scene

FRAME_SIZE = 128
ABSENT = -1


@dataclass(frozen=True)
class SceneBatch:
    """Scenes as tensors.

    Places and radii are in units of the frame's side, colours 0 to 255; shapes index `SHAPES`.
    """

    knots: Float[Tensor, "scenes things 3 3"]
    colors: Float[Tensor, "scenes things 3"]
    shapes: Int[Tensor, "scenes things"]
    backgrounds: Float[Tensor, "scenes 2 3"]
    cuts: Float[Tensor, " scenes"]

    def __len__(self) -> int:
        return len(self.cuts)

    def __getitem__(self, index: Tensor | slice) -> SceneBatch:
        return SceneBatch(*(getattr(self, field.name)[index] for field in fields(self)))

    def to(self, device: torch.device | str) -> SceneBatch:
        return SceneBatch(*(getattr(self, field.name).to(device) for field in fields(self)))


def batch_scenes(scenes: Sequence[Scene]) -> SceneBatch:
    """Scenes on the CPU; missing things have shape `ABSENT`."""
    knots, colors, shapes = [], [], []
    for scene in scenes:
        missing = MAX_THINGS - len(scene.things)
        knots.append([[(k.x, k.y, k.radius) for k in thing.knots] for thing in scene.things])
        knots[-1] += [[(0.0, 0.0, 0.0)] * 3] * missing
        colors.append([COLORS[thing.color] for thing in scene.things] + [(0, 0, 0)] * missing)
        shapes.append([SHAPES.index(thing.shape) for thing in scene.things] + [ABSENT] * missing)
    return SceneBatch(
        torch.tensor(knots, dtype=torch.float32),
        torch.tensor(colors, dtype=torch.float32),
        torch.tensor(shapes),
        torch.tensor(
            [[BACKGROUNDS[name] for name in scene.backgrounds] for scene in scenes]
        ).float(),
        torch.tensor([scene.cut for scene in scenes], dtype=torch.float32),
    )


def render(
    scenes: SceneBatch, times: Float[Tensor, "scenes frames"], size: int = FRAME_SIZE
) -> Float[Tensor, "scenes frames 3 size size"]:
    """Frames at `times` (0 is the clip's begin, 1 its end), RGB from 0 to 255, not rounded."""
    centres = (torch.arange(size, device=times.device) + 0.5) / size
    image = _background(scenes, times)[..., None, None].expand(-1, -1, -1, size, size)
    for index in reversed(range(MAX_THINGS)):
        place = _interpolate(scenes.knots[:, index], times)[..., None, None]
        dx, dy = centres - place[:, :, 0], centres[:, None] - place[:, :, 1]
        distance = _distance(scenes.shapes[:, index, None, None, None], dx, dy, place[:, :, 2])
        coverage = (0.5 - distance * size).clamp(0, 1)[:, :, None]
        image = image + coverage * (scenes.colors[:, index, None, :, None, None] - image)
    return image


def frame_times(n_frames: int) -> Float[Tensor, " frames"]:
    """The moments that a clip of `n_frames` shows: evenly from 0 to 1."""
    return torch.linspace(0, 1, n_frames)


def _interpolate(
    knots: Float[Tensor, "scenes 3 3"], times: Float[Tensor, "scenes frames"]
) -> Float[Tensor, "scenes frames 3"]:
    first = (times * 2).clamp(0, 1)[..., None]
    second = (times * 2 - 1).clamp(0, 1)[..., None]
    start, middle, end = knots[:, None].unbind(2)
    return start + first * (middle - start) + second * (end - middle)


def _background(
    scenes: SceneBatch, times: Float[Tensor, "scenes frames"]
) -> Float[Tensor, "scenes frames 3"]:
    after = (times >= scenes.cuts[:, None])[..., None]
    return torch.where(after, scenes.backgrounds[:, None, 1], scenes.backgrounds[:, None, 0])


def _distance(
    shape: Int[Tensor, "scenes 1 1 1"],
    dx: Float[Tensor, "scenes frames 1 size"],
    dy: Float[Tensor, "scenes frames size 1"],
    radius: Float[Tensor, "scenes frames 1 1"],
) -> Float[Tensor, "scenes frames size size"]:
    """Signed distance to the shape's edge, negative inside; an absent thing is far away."""
    half = 0.9 * radius
    circle = (dx.square() + dy.square()).sqrt() - radius
    square = torch.maximum(dx.abs(), dy.abs()) - half
    # An upright triangle as high as the square, a little wider than half its height on each side;
    # 0.874 makes the slanted sides' offset a distance.
    triangle = torch.maximum(dy.abs() - half, (dx.abs() - (dy + half) * 0.555) * 0.874)
    distance = torch.where(shape == 0, circle, torch.where(shape == 1, square, triangle))
    return torch.where(shape == ABSENT, torch.ones_like(distance), distance)

"""Video tokens lie on the picture where a family says: what is changed there changes those tokens
most."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_incremental_adapters import CHAT
from tiny_hf import FAMILIES, write_tiny_hf
from tiny_internvl import write_tiny_internvl
from tiny_llava import tiny_config, tiny_question, write_tiny_llava
from tiny_videollama3 import chat_question, write_tiny_videollama3

from mapflow.model_adapters.families.hf.model import HfVideo
from mapflow.model_adapters.families.internvl.model import InternVLVideo
from mapflow.model_adapters.families.llava.model import LlavaVideo
from mapflow.model_adapters.families.videollama3.model import VideoLlama3
from mapflow.model_adapters.frame_grid import View, centred_view, token_grid
from mapflow.model_adapters.interventions import Segment, TokenLayout
from mapflow.model_adapters.video_llm import VideoLLM
from mapflow.results.contract.errors import MapflowError

OWN = ("llava", "own_internvl", "videollama3")
UNKNOWN = (
    "smolvlm",
)  # frames are padded to a square, and which tokens are padding the processor does not say


def load(family: str, folder: Path) -> VideoLLM:
    match family:
        case "llava":  # 4 × 4 patches, pooled to two rows of four
            return LlavaVideo.load(write_tiny_llava(folder, tiny_config(tokens=(2, 4))))
        case "own_internvl":
            return InternVLVideo.load(write_tiny_internvl(folder))
        case "videollama3":
            return VideoLlama3.load(write_tiny_videollama3(folder))
        case _:
            return HfVideo.load(write_tiny_hf(folder, family), dtype=torch.float32)


def question(family: str):
    return {"llava": tiny_question, "own_internvl": tiny_question}.get(
        family, chat_question if family == "videollama3" else lambda: CHAT
    )()


def keep_patches_apart(model: VideoLLM) -> None:
    """A vision tower in which no patch reads another: what comes out at a place went in there."""
    ends = ("self_attn.out_proj.weight", "attention.projection_layer.weight", "attn.proj.weight")
    silenced = 0
    for name, parameter in model.model.named_parameters():
        if "vis" in name and name.endswith(ends):
            parameter.data.zero_()
            silenced += 1
    assert silenced


@pytest.mark.parametrize("family", [*OWN, *(one for one in FAMILIES if one not in UNKNOWN)])
@torch.inference_mode()
def test_a_change_on_the_picture_is_a_change_of_the_token_there(family, tmp_path):
    model = load(family, tmp_path)
    keep_patches_apart(model)
    height, width = 48, 80
    frames = np.full((4, height, width, 3), 90, np.uint8)
    frames += np.random.default_rng(0).integers(0, 30, frames.shape, dtype=np.uint8)
    view = model.view(height, width)
    prepared = model.encode(question(family), frames)  # pyright: ignore[reportAttributeAccessIssue]
    grid = model.token_grid(prepared)
    n_frames, rows, columns = grid.shape
    assert n_frames == prepared.layout.n_frames and rows * columns > 1
    before = model.embed([prepared])[0].embeds
    stands_for = len(frames) // n_frames
    down, across = (view.bottom - view.top) / rows, (view.right - view.left) / columns
    stood = []
    for row in range(rows):
        for column in range(columns):
            frame = (row + column) % n_frames
            changed = frames.copy()
            top, left = view.top + row * down, view.left + column * across
            spot = (slice(round(top), round(top + down)), slice(round(left), round(left + across)))
            changed[(slice(frame * stands_for, (frame + 1) * stands_for), *spot)] ^= 255
            item = model.encode(question(family), changed)  # pyright: ignore[reportAttributeAccessIssue]
            moved = (model.embed([item])[0].embeds - before).norm(dim=-1)
            assert int(moved.argmax()) == int(grid[frame, row, column]), (frame, row, column)
            stood.append(float(moved[grid[frame]].median() / moved.max()))
            elsewhere = [one for one in range(n_frames) if one != frame]
            assert moved[grid[elsewhere]].max() == 0, "another frame"
    assert np.mean(stood) < 0.5, (
        "most of the frame stays as it was: it is not chance that the right token moves most"
    )


@pytest.mark.parametrize("family", UNKNOWN)
def test_what_is_not_known_is_said(family, tmp_path):
    model = load(family, tmp_path)
    prepared = model.encode(question(family), np.zeros((4, 16, 16, 3), np.uint8))  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(
        MapflowError, match=r"where the video tokens of .* lie on a frame is not known"
    ):
        model.token_grid(prepared)


def test_text_in_a_frame_and_a_line_end_are_no_part_of_the_picture():
    layout = TokenLayout.from_runs(
        [
            (Segment("system"), 1),
            (Segment("frame", 0), 5),
            (Segment("frame", 1), 6),
            (Segment("last"), 1),
        ]
    )
    ids = torch.tensor([7, 1, 9, 9, 9, 9, 1, 9, 9, 9, 9, 9, 7])
    found = token_grid(layout, ids, torch.tensor([9]), 2, 2, trailing=1)
    assert found.tolist() == [[[2, 3], [4, 5]], [[7, 8], [9, 10]]]
    with pytest.raises(MapflowError, match=r"frame\[1\] has 5 tokens, not 2 × 2"):
        token_grid(layout, ids, torch.tensor([9]), 2, 2)


@given(st.integers(8, 2000), st.integers(8, 2000), st.integers(8, 400), st.data())
def test_a_view_is_what_resizing_and_cropping_leaves(height, width, edge, data):
    crop = data.draw(st.integers(1, edge)), data.draw(st.integers(1, edge))
    top, left, bottom, right = centred_view(height, width, edge, crop)
    assert 0 <= top < bottom <= height or (
        bottom - top == 0 and crop[0] * min(height, width) < edge
    )
    scale = edge / min(height, width)
    assert (bottom - top) * scale == pytest.approx(crop[0], abs=scale)
    assert (right - left) * scale == pytest.approx(crop[1], abs=scale)
    assert abs((height - bottom) - top) <= 1 and abs((width - right) - left) <= 1
    assert centred_view(height, width, (edge, edge), (edge, edge)) == View(0, 0, height, width)

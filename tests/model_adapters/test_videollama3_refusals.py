"""Folders that are not quite a VideoLLaMA3 checkpoint are refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_videollama3 import TOWER, tiny_videollama3_config, write_tiny_videollama3

from mapflow.model_adapters.families.videollama3.model import VideoLlama3
from mapflow.results.contract.errors import MapflowError


def fails(folder: Path, *words: str) -> None:
    """Loading stops with one line that holds all `words`."""
    with pytest.raises(MapflowError) as caught:
        VideoLlama3.load(folder)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mm_projector_type": "linear"}, ("mm_projector_type", "linear", "mlp2x_gelu")),
        ({"vision_encoder_config": None}, ("vision_encoder_config", "vision_encoder")),
        ({"image_token_index": 10**6}, ("image_token_index", "1000000")),
        ({"hidden_size": "wide"}, ("config.json",)),
        ({"vision_encoder_config": {"hidden_size": "wide"}}, ("config.json",)),
        ({"architectures": ["InternVLChatModel"]}, ("mapflow_internvl",)),
        ({"architectures": ["VideoLlama3ForConditionalGeneration"]}, ("mapflow_hf",)),
    ],
)
def test_what_is_not_supported_is_named(tmp_path, change: dict[str, Any], words):
    folder = write_tiny_videollama3(tmp_path)
    (folder / "config.json").write_text(json.dumps(tiny_videollama3_config() | change))
    fails(folder, *words)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "preprocessor_config.json"])
def test_a_missing_file_is_named(tmp_path, name):
    folder = write_tiny_videollama3(tmp_path)
    (folder / name).unlink()
    fails(folder, "has no", name)


def test_the_local_layouts_tower_is_named_where_absent(tmp_path):
    folder = write_tiny_videollama3(tmp_path / "saved", tiny_videollama3_config(local=True))
    (tmp_path / TOWER / "preprocessor_config.json").unlink()
    fails(folder, TOWER, "preprocessor_config.json")
    (tmp_path / TOWER).rename(tmp_path / "elsewhere")
    fails(folder, TOWER, "not beside it")


@pytest.mark.parametrize("key", ["image_mean", "patch_size"])
def test_a_missing_entry_of_the_preprocessor_is_named(tmp_path, key):
    folder = write_tiny_videollama3(tmp_path)
    file = folder / "preprocessor_config.json"
    content = json.loads(file.read_text())
    del content[key]
    file.write_text(json.dumps(content), encoding="utf-8")
    fails(folder, "preprocessor_config.json", key)
    file.write_text(json.dumps(content | {key: [1, 1, 1], "do_resize": False}), encoding="utf-8")
    fails(folder, "do_resize")

"""Weights are floating-point numbers: other formats convert without an error, so their files are
refused by name and format, in every loader."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_lora import pair, write_adapter
from tiny_hf import write_tiny_hf
from tiny_internvl import write_tiny_internvl
from tiny_llava import write_tiny_llava
from tiny_videollama3 import write_tiny_videollama3

from mapflow.model_adapters.families.hf.model import HfVideo
from mapflow.model_adapters.families.internvl.model import InternVLVideo
from mapflow.model_adapters.families.llava.model import LlavaVideo
from mapflow.model_adapters.families.llava.network import LlavaNetwork
from mapflow.model_adapters.families.videollama3.model import VideoLlama3
from mapflow.model_adapters.mini.network import load_weights
from mapflow.results.contract.errors import MapflowError

TINY = {
    "llava": (write_tiny_llava, LlavaVideo),
    "internvl": (write_tiny_internvl, InternVLVideo),
    "videollama3": (write_tiny_videollama3, VideoLlama3),
    "hf": (lambda folder: write_tiny_hf(folder, "qwen2_5_vl", layers=2), HfVideo),
}
FORMATS = {
    torch.int64: "I64",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.complex64: "C64",
}


def convert(file: Path, ending: str, dtype: torch.dtype) -> str:
    """Rewrites one tensor of a file in another format, and returns its name."""
    weights = load_file(file)
    name = next(name for name in sorted(weights) if name.endswith(ending))
    save_file({**weights, name: weights[name].to(dtype)}, file, metadata={"format": "pt"})
    return name


def refused(load, *words: str) -> None:
    with pytest.raises(MapflowError) as excinfo:
        load()
    assert "\n" not in str(excinfo.value)
    assert [word for word in words if word not in str(excinfo.value)] == []


@pytest.fixture(scope="module", params=TINY)
def folder(request, tmp_path_factory):
    write, loads = TINY[request.param]
    return write(tmp_path_factory.mktemp("formats") / request.param), loads


@pytest.mark.parametrize("dtype", FORMATS, ids=FORMATS.values())
def test_weights_in_other_formats_are_refused_by_name(folder, dtype):
    (place, loads), file = folder, folder[0] / "model.safetensors"
    before = file.read_bytes()
    try:
        for ending in ("mlp.up_proj.weight", "mlp.gate_up_proj.weight", "norm.weight"):
            if any(name.endswith(ending) for name in load_file(file)):
                name = convert(file, ending, dtype)
                refused(lambda: loads.load(place), name, f"as {FORMATS[dtype]};", "F32, BF16")
                file.write_bytes(before)
    finally:
        file.write_bytes(before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_every_floating_point_format_loads(folder, dtype):
    (place, loads), file = folder, folder[0] / "model.safetensors"
    before = file.read_bytes()
    try:
        convert(file, "norm.weight", dtype)
        assert {p.dtype for p in loads.load(place).model.parameters()} == {torch.float32}
    finally:
        file.write_bytes(before)


def test_tables_and_counters_may_be_integers(folder):
    place, loads = folder
    file = place / "model.safetensors"
    before = file.read_bytes()
    tables = {"vision_model.embeddings.position_ids": torch.arange(3)}
    try:
        save_file({**load_file(file), **tables}, file, metadata={"format": "pt"})
        loads.load(place)
    finally:
        file.write_bytes(before)


@pytest.mark.parametrize("dtype", FORMATS, ids=FORMATS.values())
def test_adapters_in_other_formats_are_refused_by_name(tmp_path, dtype):
    base = write_tiny_llava(tmp_path / "base")
    module = "language_model.model.layers.1.self_attn.q_proj"
    adapter = write_adapter(tmp_path / "adapter", pair(module, 0))
    name = convert(adapter / "adapter_model.safetensors", "lora_B.weight", dtype)
    refused(lambda: LlavaVideo.load(base, lora=adapter), name, f"as {FORMATS[dtype]};")


def test_adapters_of_transformers_models_are_checked_too(tmp_path):
    base = write_tiny_hf(tmp_path / "base", "qwen2_5_vl", layers=2)
    module = "model.language_model.layers.1.self_attn.q_proj"
    adapter = write_adapter(tmp_path / "adapter", pair(module, 0))
    name = convert(adapter / "adapter_model.safetensors", "lora_A.weight", torch.int32)
    refused(lambda: HfVideo.load(base, lora=adapter), name, "as I32;")


def test_weights_to_train_on_are_checked_too(tmp_path):
    folder = write_tiny_llava(tmp_path / "tiny")
    network = LlavaNetwork.from_config_dict(json.loads((folder / "config.json").read_text()))
    load_weights(network, folder)
    name = convert(folder / "model.safetensors", "norm.weight", torch.int64)
    refused(lambda: load_weights(network, folder), name, "as I64;")

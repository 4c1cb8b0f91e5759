"""Checkpoint folders that mean harm: one line, no file outside the folder, no code, no memory for
what they claim."""

from __future__ import annotations

import contextlib
import json
import struct
import sys

import pytest
from tiny_llava import tiny_config, write_tiny_llava

from mapflow.model_adapters.checkpoints.folder import check_sizes, weight_files
from mapflow.model_adapters.families.hf.loading import load_processor, native_config
from mapflow.model_adapters.families.llava.model import LlavaVideo
from mapflow.results.contract import files
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.files import read_json


@pytest.fixture
def folder(tmp_path):
    return write_tiny_llava(tmp_path / "tiny")


def refused(folder, why: str) -> None:
    with pytest.raises(MapflowError, match=why) as error:
        LlavaVideo.load(folder)
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    "shard",
    [
        "../tiny2/model.safetensors",
        "/etc/passwd",
        "a/b.safetensors",
        "..\\x.safetensors",
        "x.bin",
        "x\0.safetensors",
        "..",
        "",
        None,
        7,
        ["x.safetensors"],
        "\x1b[31m.safetensors",
    ],
)
def test_an_index_names_files_of_its_own_folder_alone(folder, tmp_path, shard):
    write_tiny_llava(tmp_path / "tiny2")
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"a": shard}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(folder, "not a safetensors file in its own folder")


@pytest.mark.parametrize(
    "index", [{}, {"weight_map": []}, {"weight_map": None}, {"weight_map": {}}]
)
def test_an_index_without_shards(folder, index):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(MapflowError, match="no shards"):
        weight_files(folder)


def header_of(content: bytes) -> tuple[dict, bytes]:
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def rewrite(folder, change) -> None:
    """The weights' file with another header."""
    file = folder / "model.safetensors"
    header, body = header_of(file.read_bytes())
    header.pop("__metadata__", None)
    change(header)
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + body)


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 2**40, 100_000_001, 0, 7])
def test_absurd_header_lengths(folder, length):
    file = folder / "model.safetensors"
    file.write_bytes(struct.pack("<Q", length) + file.read_bytes()[8:])
    refused(folder, "not a complete safetensors file")


def first(header) -> dict:
    return header[sorted(header)[0]]


@pytest.mark.parametrize(
    "change",
    [
        lambda header: first(header).update(shape=[2**40, 2**40]),
        lambda header: first(header).update(shape=[2**63]),
        lambda header: first(header).update(shape=[-1]),
        lambda header: first(header).update(shape=[1]),
        lambda header: first(header).update(dtype="F64"),
        lambda header: first(header).update(dtype="PICKLE"),
        lambda header: first(header).update(data_offsets=[0, 2**62]),
        lambda header: first(header).update(data_offsets=[8, 0]),
        lambda header: header.update({"extra": first(header)}),
        lambda header: header.pop(sorted(header)[0]),
    ],
)
def test_headers_that_lie_about_types_shapes_and_places(folder, change):
    rewrite(folder, change)
    refused(folder, "not a complete safetensors file|do not fit")


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("text_config", "num_hidden_layers", 10**9),
        ("text_config", "num_hidden_layers", -1),
        ("text_config", "hidden_size", 2**40),
        ("text_config", "vocab_size", 10**12),
        ("text_config", "max_position_embeddings", 10**12),
        ("text_config", "num_attention_heads", 10**7),
        ("vision_config", "image_size", 10**6),
        ("vision_config", "num_hidden_layers", 1e300),
    ],
)
def test_sizes_that_no_model_has_are_refused_before_anything_is_built(folder, part, name, value):
    config = tiny_config()
    config[part][name] = value
    (folder / "config.json").write_text(json.dumps(config))
    refused(folder, rf"{name}=.* is outside 0\.\.")


def test_sizes_of_real_models_are_believed(tmp_path):
    vision = {
        "image_size": 448,
        "num_hidden_layers": 45,
        "hidden_size": 3200,
        "intermediate_size": 12800,
    }
    text = {"num_hidden_layers": 126, "vocab_size": 262_208, "max_position_embeddings": 10_485_760}
    check_sizes({"text_config": text, "vision_config": vision}, tmp_path)


@pytest.mark.parametrize(
    "architectures",
    [None, [], 5, {}, [None], [["x"]], "LlavaForConditionalGeneration", ["\x1b[2J"]],
)
def test_architectures_that_are_none(folder, architectures):
    (folder / "config.json").write_text(
        json.dumps({**tiny_config(), "architectures": architectures})
    )
    refused(folder, "is not a llava checkpoint")
    with contextlib.suppress(MapflowError):  # model_type may name a model all the same
        native_config(folder)


@pytest.mark.parametrize("content", ["[" * 100_000, "9" * 5000, "[]", "", "\x00", '{"a":'])
def test_json_that_is_none(folder, content):
    (folder / "config.json").write_text(content)
    refused(folder, "config.json")


def test_json_that_is_too_large_is_not_read(folder, monkeypatch):
    monkeypatch.setattr(files, "LARGEST_JSON", 10)
    with pytest.raises(MapflowError, match="more than 10 bytes"):
        read_json(folder / "config.json")


EVIL = """import pathlib
pathlib.Path({mark!r}).write_text('ran')
class Evil: pass
EvilConfig = EvilTokenizer = EvilModel = Evil
"""


def plant(folder, mark) -> None:
    """Code, and every entry that asks for it."""
    for name in (
        "evil",
        "configuration_evil",
        "tokenization_evil",
        "modeling_evil",
        "processing_evil",
    ):
        (folder / f"{name}.py").write_text(EVIL.format(mark=str(mark)))
    autos = (
        "AutoConfig",
        "AutoTokenizer",
        "AutoModel",
        "AutoProcessor",
        "AutoModelForImageTextToText",
        "AutoImageProcessor",
    )
    for name in (
        "config.json",
        "tokenizer_config.json",
        "processor_config.json",
        "preprocessor_config.json",
    ):
        file = folder / name
        content = json.loads(file.read_text()) if file.is_file() else {}
        content["auto_map"] = {auto: "evil.EvilTokenizer" for auto in autos}
        content["auto_map"]["AutoTokenizer"] = ["evil.EvilTokenizer", "evil.EvilTokenizer"]
        file.write_text(json.dumps(content))


def test_code_in_a_checkpoint_is_never_run(folder, tmp_path):
    mark = tmp_path / "mark"
    plant(folder, mark)
    LlavaVideo.load(folder)  # every file that is needed is there: the code is not
    for load in (native_config, load_processor):
        with contextlib.suppress(MapflowError):
            load(folder)
    config = {
        "model_type": "evil",
        "architectures": ["EvilModel"],
        "auto_map": {"AutoConfig": "evil.EvilConfig"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        MapflowError, match="needs Python code from the checkpoint, which is never run"
    ):
        native_config(folder)
    refused(folder, "is not a llava checkpoint")
    assert not mark.exists() and not [
        name for name in sys.modules if name.rpartition(".")[2] == "evil"
    ]


def test_pickles_are_never_loaded(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refused(folder, "only pickled weights")

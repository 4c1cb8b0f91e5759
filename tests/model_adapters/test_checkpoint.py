"""Loading: every way of storing the same weights gives the same network, and every damage a message
that names it."""

from __future__ import annotations

import hashlib
import json
import weakref

import pytest
import torch
from tiny_llava import tiny_config, tiny_weights, write_tiny_llava, write_weights
from torch import nn

from mapflow.model_adapters.checkpoints.folder import architecture_of, weight_files
from mapflow.model_adapters.checkpoints.network_loading import (
    SafetensorsWeights,
    device_of,
    load_network,
    rename,
    resolve_dtype,
)
from mapflow.model_adapters.families.llava.model import LlavaVideo
from mapflow.model_adapters.families.llava.network import LlavaNetwork
from mapflow.model_adapters.families.registry import families, family
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.files import sha256

ROTARY = "language_model.model.rotary_emb.inv_freq"


@pytest.fixture
def folder(tmp_path):
    return write_tiny_llava(tmp_path / "tiny")


def parameters(folder, **how) -> dict[str, torch.Tensor]:
    return dict(LlavaVideo.load(folder, **how).network.state_dict())


def fails(folder, *words: str, **how) -> None:
    """Loading stops with one line that holds all `words`."""
    with pytest.raises(MapflowError) as caught:
        LlavaVideo.load(folder, **how)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


def test_every_tensor_arrives_unchanged(folder):
    ((old, new),) = LlavaNetwork.renames
    loaded = parameters(folder)
    saved = {
        rename(name, [(old, new)]): value for name, value in tiny_weights(tiny_config()).items()
    }
    assert loaded.keys() == saved.keys()
    for name, value in saved.items():
        assert torch.equal(loaded[name], value), name


def test_shards_equal_one_file(folder, tmp_path):
    sharded = write_tiny_llava(tmp_path / "sharded", shards=5)
    assert not (sharded / "model.safetensors").exists()
    one, many = parameters(folder), parameters(sharded)
    assert one.keys() == many.keys()
    assert all(torch.equal(one[name], many[name]) for name in one)


def test_tied_embeddings_need_no_head(tmp_path):
    folder = write_tiny_llava(tmp_path, tiny_config(tied=True))
    names = SafetensorsWeights(weight_files(folder)).shapes
    assert not any("lm_head" in name for name in names)
    language_model = LlavaVideo.load(folder).network.language_model
    assert language_model.lm_head.weight is language_model.model.embed_tokens.weight


def test_untied_head_may_not_be_absent(folder):
    weights = tiny_weights(tiny_config())
    del weights["language_model.lm_head.weight"]
    write_weights(folder, weights)
    fails(folder, "1 missing", "language_model.lm_head.weight")


def test_missing_unexpected_and_misshapen_are_told_together(folder):
    weights = tiny_weights(tiny_config())
    for name in [name for name in weights if "linear_" in name]:
        del weights[name]
    weights["language_model.adapter.weight"] = torch.zeros(2)
    weights["language_model.model.norm.weight"] = torch.zeros(7)
    write_weights(folder, weights)
    fails(
        folder,
        "4 missing: multi_modal_projector.linear_1",
        "…",
        "1 unexpected: language_model.adapter.weight",
        "1 of another shape: language_model.model.norm.weight (is (7,), should be (32,))",
    )


def test_tables_of_old_releases_are_no_surplus(folder):
    weights = tiny_weights(tiny_config())
    weights["vision_tower.vision_model.embeddings.position_ids"] = torch.arange(3)
    weights["language_model.model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(2)
    write_weights(folder, weights)
    LlavaVideo.load(folder)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_precision_is_the_callers_but_not_for_tables(folder, dtype):
    network = LlavaVideo.load(folder, dtype=dtype).network
    assert {parameter.dtype for parameter in network.parameters()} == {dtype}
    buffers = dict(network.named_buffers())
    assert buffers[ROTARY].dtype == torch.float32
    assert torch.equal(
        buffers[ROTARY], LlavaNetwork.from_config_dict(tiny_config()).get_buffer(ROTARY)
    )
    assert not any(tensor.is_meta for tensor in [*network.parameters(), *buffers.values()])


def test_nothing_is_trainable_and_nothing_drops_out(folder):
    network = LlavaVideo.load(folder).network
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_one_tensor_at_a_time():
    """Converting precision never holds more than the tensor in hand beside the network."""
    sizes = {f"{index}.weight": (64, 64) for index in range(20)}
    alive: list[int] = []
    references: list[weakref.ref] = []

    class Watched:
        shapes = sizes

        def read(self, name: str) -> torch.Tensor:
            alive.append(sum(reference() is not None for reference in references))
            tensor = torch.ones(sizes[name])
            references.append(weakref.ref(tensor))
            return tensor

    def build() -> nn.Module:
        return nn.Sequential(*(nn.Linear(64, 64, bias=False) for _ in sizes))

    load_network(build, Watched(), dtype=torch.float64)
    assert len(alive) == len(sizes)
    assert max(alive) <= 1


def test_modules_may_be_placed_one_by_one(folder):
    map_ = {"vision_tower": "cpu", "multi_modal_projector": "cpu", "language_model": "cpu"}
    placed, plain = parameters(folder, device_map=map_), parameters(folder)
    assert all(torch.equal(placed[name], plain[name]) for name in plain)
    fails(
        folder,
        "no device",
        "language_model",
        device_map={"vision_tower": "cpu", "multi_modal_projector": "cpu"},
    )


def test_longest_prefix_decides_the_device():
    placement = {"": "cpu", "a": "cuda:0", "a.b": "cuda:1"}
    assert [device_of(name, placement) for name in ("a.b.w", "a.bb.w", "c")] == [
        "cuda:1",
        "cuda:0",
        "cpu",
    ]


def test_auto_precision_is_the_checkpoints_except_on_the_cpu():
    assert resolve_dtype("auto", {"torch_dtype": "bfloat16"}, "cuda:0") == torch.bfloat16
    assert resolve_dtype("auto", {"dtype": "float16"}, {"": 0}) == torch.float16
    assert resolve_dtype("auto", {"torch_dtype": "bfloat16"}, "cpu") == torch.float32
    assert resolve_dtype("auto", {}, "cuda:0") == torch.float32
    assert resolve_dtype("bfloat16", {}, "cpu") == torch.bfloat16


@pytest.mark.parametrize(
    ("how", "word"), [({"dtype": "float8"}, "float8"), ({"device_map": "tpu0"}, "tpu0")]
)
def test_unknown_precision_or_device(folder, how, word):
    fails(folder, word, **how)


def test_digest_is_sha256_of_the_files_in_order(folder, tmp_path):
    sharded = write_tiny_llava(tmp_path / "sharded", shards=3)
    for each in (folder, sharded):
        files = weight_files(each)
        expected = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
        assert sha256(files) == expected == LlavaVideo.load(each).digest


def test_folder_or_file_absent(folder, tmp_path):
    fails(tmp_path / "nowhere", "nowhere", "does not exist")
    for name in ("config.json", "tokenizer.json", "preprocessor_config.json", "model.safetensors"):
        kept = (folder / name).read_bytes()
        (folder / name).unlink()
        fails(folder, "has no", name)
        (folder / name).write_bytes(kept)
    LlavaVideo.load(folder)


def test_pickled_weights_are_refused(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    fails(folder, "pytorch_model.bin", "never loaded", "convert")


def test_absent_shard_is_named(tmp_path):
    folder = write_tiny_llava(tmp_path, shards=3)
    victim = sorted(folder.glob("model-*"))[1]
    victim.unlink()
    fails(folder, victim.name)


@pytest.mark.parametrize("kept", [4, 200, -1])
def test_truncated_weights(folder, kept):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    fails(folder, "model.safetensors", "not a complete safetensors file")


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_broken_config(folder, text):
    (folder / "config.json").write_text(text)
    fails(folder, "config.json")


@pytest.mark.parametrize(
    ("architecture", "advice"),
    [
        ("InternVLChatModel", "mapflow_internvl"),
        ("Videollama3Qwen2ForCausalLM", "mapflow_videollama3"),
        ("BertModel", "PllavaForConditionalGeneration"),
    ],
)
def test_wrong_family_says_which_fits(folder, architecture, advice):
    (folder / "config.json").write_text(json.dumps({"architectures": [architecture]}))
    fails(folder, architecture, advice)


def test_every_golden_model_is_told_apart(golden_root):
    """Each checkpoint there is belongs to exactly one family."""
    for config in golden_root.glob("*/model*/config.json"):
        architecture = architecture_of(json.loads(config.read_text()))
        accepted = [name for name in families() if family(name).reads(architecture)]
        assert len(accepted) == 1, config


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"vision_feature_select_strategy": "full"}, "vision_feature_select_strategy"),
        ({"pooling_method": "max"}, "pooling_method"),
        ({"pooling_shape": None}, "pooling_shape"),
        ({"vision_feature_layer": [-2, -5]}, "vision_feature_layer"),
        ({"vision_feature_layer": -9}, "vision_feature_layer"),
        ({"text_config": {"model_type": "llama", "hidden_size": "wide"}}, "config.json"),
        ({"image_token_index": 10**6}, "image_token_index"),
    ],
)
def test_unsupported_settings_are_named(folder, change, word):
    (folder / "config.json").write_text(json.dumps(tiny_config() | change))
    fails(folder, word)

"""Merging an adapter gives what running base and adapter side by side gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_llava import tiny_config, tiny_question, tiny_weights, write_tiny_llava
from torch import Tensor

from mapflow.model_adapters.checkpoints.folder import weight_files
from mapflow.model_adapters.families.llava.model import LlavaVideo
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.files import sha256

RANK, ALPHA = 3, 12.0
Q, K = (f"language_model.model.layers.1.self_attn.{name}_proj" for name in "qk")


def factors(
    seed: int, inputs: int = 32, outputs: int = 32, rank: int = RANK
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    a, b = (
        torch.randn(rank, inputs, generator=generator),
        torch.randn(outputs, rank, generator=generator),
    )
    return 0.2 * a, 0.2 * b


def write_adapter(folder: Path, tensors: dict[str, Tensor], **config: Any) -> Path:
    """An adapter folder in peft's layout; `tensors` are named as in the wrapped model."""
    folder.mkdir()
    content = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA} | config
    (folder / "adapter_config.json").write_text(json.dumps(content))
    save_file(
        {f"base_model.model.{name}": value for name, value in tensors.items()},
        folder / "adapter_model.safetensors",
    )
    return folder


def pair(module: str, seed: int, infix: str = "") -> dict[str, Tensor]:
    a, b = factors(seed)
    return {
        f"{module}.lora_A{infix}.weight": a.contiguous(),
        f"{module}.lora_B{infix}.weight": b.contiguous(),
    }


def logits(model: LlavaVideo) -> Tensor:
    frames = np.random.default_rng(0).integers(
        0, 256, (model.network.n_frames, 30, 40, 3), dtype=np.uint8
    )
    embeds = model.embed([model.encode(tiny_question(), frames)])[0].embeds
    with torch.no_grad():
        return model.network.language_model(inputs_embeds=embeds[None]).logits[0]


def side_by_side(model: LlavaVideo, changes: dict[str, tuple[Tensor, Tensor, float]]) -> Tensor:
    """The reference, not merged: W x + scale · B (A x), by a hook on each changed module."""
    handles = [
        model.network.get_submodule(name).register_forward_hook(
            lambda _, inputs, output, a=a, b=b, scale=scale: (
                output + scale * (inputs[0] @ a.T @ b.T)
            )
        )
        for name, (a, b, scale) in changes.items()
    ]
    result = logits(model)
    for handle in handles:
        handle.remove()
    return result


@pytest.fixture
def base(tmp_path) -> Path:
    return write_tiny_llava(tmp_path / "base")


def test_merged_equals_side_by_side(base, tmp_path):
    adapter = write_adapter(tmp_path / "adapter", pair(Q, 1) | pair(K, 2, infix=".default"))
    scale = ALPHA / RANK
    expected = side_by_side(
        LlavaVideo.load(base), {Q: (*factors(1), scale), K: (*factors(2), scale)}
    )
    merged = logits(LlavaVideo.load(base, lora=adapter))
    torch.testing.assert_close(merged, expected, rtol=1e-4, atol=1e-4)
    assert (merged - logits(LlavaVideo.load(base))).abs().max() > 0.01, (
        "the adapter must change something"
    )


@pytest.mark.parametrize(
    ("config", "scale_of_q"),
    [
        ({"use_rslora": True}, ALPHA / RANK**0.5),
        ({"alpha_pattern": {"q_proj": 6.0}}, 6.0 / RANK),
        ({"alpha_pattern": {r"layers\.1\.self_attn\.q_proj": 6.0}}, 6.0 / RANK),
        ({"alpha_pattern": {"k_proj": 6.0}}, ALPHA / RANK),
        ({"alpha_pattern": {"proj": 6.0}}, ALPHA / RANK),
        ({"r": 77}, ALPHA / RANK),
    ],
    ids=[
        "rank-stabilised",
        "alpha by name",
        "alpha by pattern",
        "alpha of another",
        "no partial names",
        "rank is A's",
    ],
)
def test_scale(base, tmp_path, config, scale_of_q):
    adapter = write_adapter(tmp_path / "adapter", pair(Q, 1), **config)
    a, b = factors(1)
    expected = tiny_weights(tiny_config())[f"{Q}.weight"] + scale_of_q * (b @ a)
    merged = LlavaVideo.load(base, lora=adapter).network.get_parameter(f"{Q}.weight")
    torch.testing.assert_close(merged, expected)


def test_adapter_on_the_language_model_alone(base, tmp_path):
    whole = write_adapter(tmp_path / "whole", pair(Q, 1))
    inner = write_adapter(tmp_path / "inner", pair(Q.removeprefix("language_model."), 1))
    assert torch.equal(
        logits(LlavaVideo.load(base, lora=whole)), logits(LlavaVideo.load(base, lora=inner))
    )


def test_tower_embeddings_and_whole_tensors(base, tmp_path):
    saved = tiny_weights(tiny_config())
    tower = "vision_tower.vision_model.encoder.layers.0.self_attn.q_proj"
    table = "language_model.model.embed_tokens"
    vocabulary, width = saved[f"{table}.weight"].shape
    a, b = factors(3, 16, 16)
    rows, columns = factors(4, vocabulary, width)
    projector = torch.full_like(saved["multi_modal_projector.linear_2.weight"], 0.5)
    bias = torch.full_like(saved["multi_modal_projector.linear_2.bias"], 0.25)
    tensors = {
        f"{tower}.lora_A.weight": a,
        f"{tower}.lora_B.weight": b,
        f"{table}.lora_embedding_A": rows,
        f"{table}.lora_embedding_B": columns,
        "multi_modal_projector.linear_2.weight": projector,
        "multi_modal_projector.linear_2.modules_to_save.default.bias": bias,
    }
    network = LlavaVideo.load(base, lora=write_adapter(tmp_path / "adapter", tensors)).network
    scale = ALPHA / RANK
    expected = {
        tower.replace("vision_model.", "") + ".weight": saved[f"{tower}.weight"] + scale * (b @ a),
        f"{table}.weight": saved[f"{table}.weight"] + scale * (columns @ rows).T,
        "multi_modal_projector.linear_2.weight": projector,
        "multi_modal_projector.linear_2.bias": bias,
        "multi_modal_projector.linear_1.weight": saved["multi_modal_projector.linear_1.weight"],
    }
    for name, value in expected.items():
        torch.testing.assert_close(network.get_parameter(name), value, msg=name)


def test_peft_agrees(base, tmp_path):
    """peft itself wraps the network, saves the adapter, and runs unmerged; ours loads what it
    saved."""
    peft = pytest.importorskip("peft")
    model = LlavaVideo.load(base)
    config = peft.LoraConfig(
        r=RANK,
        lora_alpha=5,
        target_modules=["q_proj", "down_proj"],
        modules_to_save=["linear_1"],
        init_lora_weights=False,
    )
    torch.manual_seed(0)
    wrapped = peft.get_peft_model(model.network.requires_grad_(True), config)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "modules_to_save" in name:
                parameter.mul_(2)
    wrapped.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    expected = logits(model)
    merged = logits(LlavaVideo.load(base, lora=tmp_path / "adapter"))
    torch.testing.assert_close(merged, expected, rtol=1e-4, atol=1e-4)


def test_folder_that_names_its_base(base, tmp_path):
    adapter = write_adapter(tmp_path / "adapter", pair(Q, 1), base_model_name_or_path=str(base))
    relative = write_adapter(tmp_path / "relative", pair(Q, 1), base_model_name_or_path="../base")
    given = logits(LlavaVideo.load(base, lora=adapter))
    assert torch.equal(logits(LlavaVideo.load(adapter)), given)
    assert torch.equal(logits(LlavaVideo.load(relative)), given)


def test_digest_covers_the_adapter(base, tmp_path):
    weak = write_adapter(tmp_path / "weak", pair(Q, 1), lora_alpha=1)
    strong = write_adapter(tmp_path / "strong", pair(Q, 1), lora_alpha=2)
    digests = {LlavaVideo.load(base, lora=each).digest for each in (weak, strong)}
    assert len(digests | {sha256(weight_files(base))}) == 3


@pytest.mark.parametrize(
    ("tensors", "config", "word"),
    [
        (pair("language_model.model.layers.99.self_attn.q_proj", 1), {}, "layers.99"),
        ({f"{Q}.lora_A.weight": factors(1)[0]}, {}, "lora_A"),
        (
            {f"{Q}.lora_A.weight": factors(1)[0], f"{Q}.lora_B.weight": factors(1, rank=2)[1]},
            {},
            "lora_B",
        ),
        (pair(Q, 1) | {"multi_modal_projector.linear_1.weight": torch.zeros(2, 2)}, {}, "linear_1"),
        (pair(Q, 1), {"use_dora": True}, "DoRA"),
        (pair(Q, 1), {"peft_type": "IA3"}, "IA3"),
        (pair(Q, 1), {"base_model_name_or_path": "someone/elsewhere"}, "someone/elsewhere"),
    ],
)
def test_adapters_that_do_not_fit(base, tmp_path, tensors, config, word):
    adapter = write_adapter(tmp_path / "adapter", tensors, **config)
    with pytest.raises(MapflowError) as caught:
        if config.get("base_model_name_or_path"):
            LlavaVideo.load(adapter)
        else:
            LlavaVideo.load(base, lora=adapter)
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pickled_adapter(base, tmp_path):
    adapter = write_adapter(tmp_path / "adapter", pair(Q, 1))
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(MapflowError, match=r"adapter_model\.bin.*never loaded"):
        LlavaVideo.load(base, lora=adapter)

"""Mini-InternVL on tiny random checkpoints: its network against a reference implementation made of
the authors' tensors, its prompts, clips from files, and every folder that is not quite one."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny_internvl import (
    random_weights,
    reference_video_tokens,
    released_shapes,
    tiny_internvl_config,
    write_tiny_internvl,
)
from tiny_llava import tiny_question, write_weights
from torch import Tensor

from mapflow.harness.verification import verify
from mapflow.harness.verification.probe import write_clip
from mapflow.model_adapters.families.internvl.model import InternVLVideo
from mapflow.model_adapters.families.internvl.network import InternVLNetwork, pixel_shuffle
from mapflow.model_adapters.inference.answering import answer
from mapflow.model_adapters.interventions import Intervention, LayerSpan
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import Clip

VARIANTS = {
    "as released": (tiny_internvl_config(), 1),
    "query and key norms, no bias, rms norms, shards": (
        tiny_internvl_config(
            vision={"qk_normalization": True, "qkv_bias": False, "norm_type": "rms_norm"}
        ),
        4,
    ),
    "an earlier layer, grouped heads": (
        tiny_internvl_config(text={"num_key_value_heads": 2}, select_layer=-2),
        1,
    ),
    "no merging": (tiny_internvl_config(downsample_ratio=1.0), 1),
}


@pytest.fixture(scope="module", params=VARIANTS.values(), ids=list(VARIANTS))
def variant(request, tmp_path_factory):
    config, shards = request.param
    folder = write_tiny_internvl(tmp_path_factory.mktemp("tiny"), config, shards=shards)
    return config, InternVLVideo.load(folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> InternVLVideo:
    return InternVLVideo.load(write_tiny_internvl(tmp_path_factory.mktemp("tiny") / "tiny"))


def frames_for(count: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 60, 80, 3), dtype=np.uint8)


@torch.inference_mode()
def test_video_tokens_equal_the_reference(variant):
    config, model = variant
    prepared = model.encode(tiny_question(), frames_for(3))
    expected = reference_video_tokens(
        config, random_weights(released_shapes(config)), prepared.vision["pixel_values"]
    )
    (inputs,) = model.embed([prepared])
    shown = inputs.embeds[prepared.layout.positions("video")]
    torch.testing.assert_close(shown, expected, rtol=1e-4, atol=1e-4)
    rest = prepared.input_ids != model.placeholder_id
    table = random_weights(released_shapes(config))["language_model.model.embed_tokens.weight"]
    assert torch.equal(inputs.embeds[rest], table[prepared.input_ids[rest]])


@given(
    rows=st.integers(1, 4),
    columns=st.integers(1, 4),
    merge=st.integers(1, 3),
    width=st.integers(1, 3),
)
def test_pixel_shuffle_keeps_every_value_in_its_square(rows, columns, merge, width):
    values = torch.arange(2.0 * rows * columns * merge**2 * width)
    patches = values.view(2, rows * merge, columns * merge, width)
    shuffled = pixel_shuffle(patches, merge)
    assert shuffled.shape == (2, rows, columns, merge**2 * width)
    for row in range(rows):
        for column in range(columns):
            square = patches[
                :, row * merge : (row + 1) * merge, column * merge : (column + 1) * merge
            ]
            assert torch.equal(shuffled[:, row, column], square.flatten(1))


def slow_tables(config: Mapping[str, Any], n: int) -> tuple[Tensor, Tensor]:
    """The released "su" rotary embedding, written out: one set of factors for short prompts and one
    for long."""
    text = config["llm_config"]
    original, longest = text["original_max_position_embeddings"], text["max_position_embeddings"]
    factors = text["rope_scaling"]["long_factor" if n > original else "short_factor"]
    size = text["hidden_size"] // text["num_attention_heads"]
    frequencies = torch.tensor(
        [1 / (factor * 10000 ** (2 * i / size)) for i, factor in enumerate(factors)]
    )
    angles = torch.arange(n)[:, None] * frequencies
    grown = math.sqrt(1 + math.log(longest / original) / math.log(original))
    angles = torch.cat([angles, angles], -1)
    return angles.cos() * grown, angles.sin() * grown


@pytest.mark.parametrize("n", [3, 256, 257, 400])
def test_rotary_tables_are_the_released_ones(model, n):
    rotary = model.network.language_model.model.rotary_emb
    cos, sin = rotary(torch.zeros(1, n, 32), torch.arange(n)[None])
    expected = slow_tables(tiny_internvl_config(), n)
    torch.testing.assert_close(cos[0], expected[0], rtol=0, atol=1e-4)
    torch.testing.assert_close(sin[0], expected[1], rtol=0, atol=1e-4)


@torch.inference_mode()
def test_rows_beyond_the_configs_sliding_window_are_read(model):
    """The released models attend eagerly, where Phi-3's sliding window was never applied."""
    config = tiny_internvl_config()["llm_config"]
    embeds = model.embed([model.encode(tiny_question(), frames_for())])[0].embeds
    # Through windows, the first row would reach no further than this.
    assert len(embeds) > config["num_hidden_layers"] * config["sliding_window"]
    changed = embeds.clone()
    changed[0] += 1
    last = [
        model.decoder.core(inputs_embeds=x[None]).last_hidden_state[0, -1]
        for x in (embeds, changed)
    ]
    assert (last[0] - last[1]).abs().max() > 1e-4


def test_it_is_certified(model):
    assert [str(finding) for finding in verify(model) if not finding.passed] == []


def test_half_precision_stays_near(model, tmp_path):
    half = InternVLVideo.load(write_tiny_internvl(tmp_path), dtype="bfloat16")
    prepared = model.encode(tiny_question(), frames_for())
    full, rounded = model.embed([prepared])[0].embeds, half.embed([prepared])[0].embeds
    assert rounded.dtype == torch.bfloat16
    assert (full - rounded).abs().mean() < 0.02 * full.abs().mean()
    # Computed tables keep their precision: rounded to bfloat16, late positions would fall together.
    assert half.network.language_model.model.rotary_emb.inv_freq.dtype == torch.float32


def test_clips_of_a_batch_do_not_mix(model):
    prepared = [
        model.encode(tiny_question(stem=f"{'very ' * n}?"), frames_for(2 + n, seed=n))
        for n in range(3)
    ]
    for item, together in zip(prepared, model.embed(prepared), strict=True):
        torch.testing.assert_close(
            together.embeds, model.embed([item])[0].embeds, rtol=0, atol=1e-5
        )
        assert len(together) == len(item.layout) == len(item.input_ids)


def test_network_can_be_built_without_memory():
    with torch.device("meta"):
        network = InternVLNetwork.from_config_dict(tiny_internvl_config())
    assert all(parameter.is_meta for parameter in network.parameters())
    assert network.tokens_per_frame == 4


def test_rendered_prompt(model):
    ids = model.encode(tiny_question(), frames_for()).input_ids.tolist()
    shown = 4 * model.network.tokens_per_frame
    first = ids.index(model.placeholder_id)
    assert ids[first : first + shown] == [model.placeholder_id] * shown
    text = model.tokenizer.decode(ids[:first] + ids[first + shown - 1 :], skip_special_tokens=False)
    assert text.removeprefix("<s>").replace(" ", "") == (
        "Watch the ball.\n <|user|>\n<img><IMG_CONTEXT></img>\n <|user|>\nQuestion: Where does"
        " the ball go?\nOptions:\n"
        "(A) the left\n(B) the right \nOnly give the best option. <|assistant|>\nBest option:("
    ).replace(" ", "")


def test_layout_names_every_position(model):
    prepared = model.encode(tiny_question(target=1), frames_for())
    tokens = model.tokenizer.convert_ids_to_tokens(prepared.input_ids.tolist())

    def said(name: str) -> str:
        positions = prepared.layout.positions(name).tolist()
        return (
            "".join(tokens[position] for position in positions)
            .replace("▁", "")
            .replace("<0x0A>", "\n")
        )

    assert said("system") == "<s>Watchtheball.\n<|user|>\n<img>"
    assert said("frame[2]") == "<IMG_CONTEXT>" * model.network.tokens_per_frame
    assert said("stem") == "Wheredoestheballgo?"
    assert said("true_option") == "(B)theright"
    assert said("false_options") == "(A)theleft"
    assert said("template") == "</img>\n<|user|>\n\nOnlygivethebestoption.<|assistant|>\nBestoption"
    assert said("last") == ":("


def test_written_answers_end_with_the_turn(model, monkeypatch):
    spelled = model.tokenizer.convert_ids_to_tokens
    assert spelled(list(model.stop_ids)) == ["</s>", "<|end|>"]
    prepared = model.encode(replace(tiny_question(), max_new_tokens=5), frames_for())
    (inputs,) = model.embed([prepared])
    (whole,), _ = model.decoder.generate(inputs, [Intervention().compile(prepared.layout, 4)], 5)
    monkeypatch.setattr(InternVLVideo, "stop_ids", (whole[2],))
    ((record,),) = answer(model, [prepared], [Intervention()])
    kept = whole[: whole.index(whole[2])]
    assert record.prediction == model.tokenizer.decode(kept, skip_special_tokens=True).strip()


def test_as_many_frames_as_the_protocol_asks_for(model, tmp_path):
    file = tmp_path / "clip.mp4"
    write_clip(file, seed=1)
    question = tiny_question(clip=Clip(str(file)))
    assert model.prepare(question).frame_indices == (
        2,
        8,
        14,
        19,
    )  # config.json's four, in the middle of quarters
    more = model.prepare(replace(question, n_frames=6))
    assert more.layout.n_frames == len(more.frame_indices) == 6
    assert len(more.layout.positions("video")) == 6 * model.network.tokens_per_frame


def test_lora_on_the_fused_tower_and_the_language_model(tmp_path):
    """Adapters name modules as the release does, also those that are stored otherwise here."""
    config = tiny_internvl_config()
    base = write_tiny_internvl(tmp_path / "base", config)
    weights, generator = load_file(base / "model.safetensors"), torch.Generator().manual_seed(1)
    modules = (
        "vision_model.encoder.layers.1.attn.qkv",
        "language_model.model.layers.2.self_attn.qkv_proj",
        "mlp1.1",
    )
    factors = {}
    for module in modules:
        rows, columns = weights[f"{module}.weight"].shape
        a, b = (
            torch.randn(2, columns, generator=generator),
            torch.randn(rows, 2, generator=generator),
        )
        factors |= {
            f"base_model.model.{module}.lora_A.weight": a,
            f"base_model.model.{module}.lora_B.weight": b,
        }
        weights[f"{module}.weight"] = weights[f"{module}.weight"] + 3 * b @ a
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    save_file(factors, adapter / "adapter_model.safetensors")
    (adapter / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "lora_alpha": 6, "r": 2}), encoding="utf-8"
    )
    merged = write_tiny_internvl(tmp_path / "merged", config)
    write_weights(merged, weights)
    found = InternVLVideo.load(base, lora=adapter).network.state_dict()
    expected = InternVLVideo.load(merged).network.state_dict()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)


def test_pathways_come_with_the_name(tmp_path):
    named = write_tiny_internvl(
        tmp_path / "models--byminji--Mini-InternVL-4B-Video-FT" / "snapshots" / "0"
    )
    pathways = InternVLVideo.load(named).pathways
    assert pathways is not None
    assert pathways.question_to_last == LayerSpan(11, 30)


def fails(folder: Path, *words: str) -> None:
    """Loading stops with one line that holds all `words`."""
    with pytest.raises(MapflowError) as caught:
        InternVLVideo.load(folder)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ps_version": "v1"}, ("ps_version", "v1")),
        ({"downsample_ratio": 0.3}, ("downsample_ratio", "0.3")),
        ({"downsample_ratio": 1 / 3}, ("downsample_ratio", "4 × 4")),
        ({"select_layer": -9}, ("select_layer", "-9", "3 layers")),
        ({"vision_config": None}, ("vision_config",)),
        ({"llm_config": None}, ("llm_config",)),
        ({"llm_config": {"model_type": "phi3", "hidden_size": "wide"}}, ("config.json",)),
        ({"architectures": ["PllavaForConditionalGeneration"]}, ("mapflow_llava",)),
        ({"architectures": ["InternVLForConditionalGeneration"]}, ("mapflow_hf",)),
    ],
)
def test_what_is_not_supported_is_named(tmp_path, change, words):
    folder = write_tiny_internvl(tmp_path)
    (folder / "config.json").write_text(json.dumps(tiny_internvl_config() | change))
    fails(folder, *words)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "preprocessor_config.json"])
def test_a_missing_file_is_named(tmp_path, name):
    folder = write_tiny_internvl(tmp_path)
    (folder / name).unlink()
    fails(folder, "has no", name)


def test_pickled_weights_are_refused(tmp_path):
    folder = write_tiny_internvl(tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    fails(folder, "pytorch_model.bin", "never loaded", "safe_serialization")


def test_another_language_models_conversation_is_refused(tmp_path):
    folder = write_tiny_internvl(tmp_path, tiny_internvl_config(template="internlm2-chat"))
    file = folder / "tokenizer.json"
    file.write_text(
        file.read_text(encoding="utf-8").replace("<|user|>", "<|human|>"), encoding="utf-8"
    )
    fails(folder, "<|user|>", "internlm2-chat", "mapflow_hf")


def test_crop_and_tower_must_agree(tmp_path):
    folder = write_tiny_internvl(tmp_path)
    file = folder / "preprocessor_config.json"
    content = json.loads(file.read_text()) | {"crop_size": 56, "size": 56}
    file.write_text(json.dumps(content), encoding="utf-8")
    fails(folder, "(56, 56)", "28")


def test_missing_and_strange_tensors_are_named(tmp_path):
    folder = write_tiny_internvl(tmp_path)
    weights = random_weights(released_shapes(tiny_internvl_config()))
    del weights["vision_model.encoder.layers.1.attn.qkv.weight"]
    write_weights(folder, weights | {"mlp1.7.weight": torch.zeros(2)})
    fails(folder, "3 missing", "layer.1.attention.q_proj.weight", "1 unexpected", "mlp1.7.weight")

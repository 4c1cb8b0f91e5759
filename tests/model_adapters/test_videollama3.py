"""VideoLLaMA3 on tiny random checkpoints: its network against a reference implementation made of
the authors' tensors, its patches, its prompts and told times, and clips from files."""

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
from tiny_videollama3 import (
    PROMPT,
    chat_question,
    released_weights,
    tiny_videollama3_config,
    tiny_vision_config,
    write_tiny_videollama3,
)
from torch import Tensor
from torch.nn.functional import conv2d, gelu, layer_norm

from mapflow.harness.verification import verify
from mapflow.harness.verification.probe import write_clip
from mapflow.model_adapters.families.registry import load_model
from mapflow.model_adapters.families.videollama3.model import VideoLlama3
from mapflow.model_adapters.families.videollama3.network import VideoLlama3Network
from mapflow.model_adapters.inference.subject import run_identity
from mapflow.model_adapters.interventions import LayerSpan
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import Clip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_tiny_videollama3(tmp_path_factory.mktemp("tiny") / "tiny")


@pytest.fixture(scope="module")
def model(folder) -> VideoLlama3:
    return VideoLlama3.load(folder)


def frames_for(count: int = 3, height: int = 60, width: int = 80, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def slow_video_tokens(
    weights: Mapping[str, Tensor], patches: Tensor, grid: tuple[int, int, int], mixing: bool
) -> Tensor:
    """From the released tensors, on the picture of each frame: patches in rows, rotary angles by
    row and column, a loop over heads, and the mean of each square of patches. `mixing`: all frames
    at once, a frame's own scores plus 1."""
    vision, prefix = tiny_vision_config(), "model.vision_encoder."
    tower = {n.removeprefix(prefix): w for n, w in weights.items() if n.startswith(prefix)}
    heads, width, patch = vision["num_attention_heads"], vision["hidden_size"], vision["patch_size"]
    size = width // heads

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ tower[f"{name}.weight"].T + tower[f"{name}.bias"]

    def norm(x: Tensor, name: str) -> Tensor:
        return layer_norm(x, (width,), tower[f"{name}.weight"], tower[f"{name}.bias"], eps=1e-6)

    frames, rows, columns = grid
    # Undo the order of squares: [frame, square row, square column, row in square, column in
    # square].
    squares = patches.view(frames, rows // 2, columns // 2, 2, 2, 3, patch, patch)
    images = squares.permute(0, 5, 1, 3, 6, 2, 4, 7).reshape(
        frames, 3, rows * patch, columns * patch
    )
    kernel, bias = (
        tower["embeddings.patch_embedding.weight"],
        tower["embeddings.patch_embedding.bias"],
    )
    x = (
        conv2d(images, kernel, bias, stride=patch).flatten(2).transpose(1, 2)
    )  # [frame, row · column, width]
    frequencies = torch.tensor([10000 ** (-2 * i / (size // 2)) for i in range(size // 4)])
    place = torch.tensor([(row, column) for row in range(rows) for column in range(columns)])
    angles = torch.cat([place[:, :1] * frequencies, place[:, 1:] * frequencies], 1)
    turn = torch.polar(torch.ones_like(angles), angles)  # pairs (i, i + size/2) as complex numbers

    def rotated(part: Tensor) -> Tensor:
        turned = torch.complex(part[..., : size // 2], part[..., size // 2 :]) * turn
        return torch.cat([turned.real, turned.imag], -1)

    own = torch.arange(frames).repeat_interleave(rows * columns)
    bonus = (own[:, None] == own).float()
    for layer in range(vision["num_hidden_layers"]):
        at = f"encoder.layers.{layer}"
        q, k, v = (
            linear(norm(x, f"{at}.layer_norm1"), f"{at}.self_attn.{part}_proj").split(size, -1)
            for part in "qkv"
        )
        mixed = []
        for head in range(heads):
            queries, keys = (rotated(part[head]).flatten(0, 1) for part in (q, k))
            scores = queries @ keys.T / math.sqrt(size)
            scores = scores + bonus if mixing else scores.masked_fill(bonus == 0, -math.inf)
            mixed.append(
                (scores.softmax(-1) @ v[head].flatten(0, 1)).view(frames, rows * columns, size)
            )
        x = x + linear(torch.cat(mixed, -1), f"{at}.self_attn.out_proj")
        inner = linear(norm(x, f"{at}.layer_norm2"), f"{at}.mlp.fc1")
        x = x + linear(gelu(inner, approximate="tanh"), f"{at}.mlp.fc2")
    x = (
        norm(x, "post_layernorm")
        .view(frames, rows // 2, 2, columns // 2, 2, width)
        .mean((2, 4))
        .flatten(0, 2)
    )
    readout = [
        [weights[f"model.mm_projector.readout.{n}.{leaf}"] for leaf in ("weight", "bias")]
        for n in (0, 2)
    ]
    return gelu(x @ readout[0][0].T + readout[0][1]) @ readout[1][0].T + readout[1][1]


@torch.inference_mode()
@pytest.mark.parametrize("vision_attention", ["isolated", "released"])
def test_video_tokens_equal_the_reference(folder, vision_attention):
    model = VideoLlama3.load(folder, vision_attention=vision_attention)
    weights = released_weights(tiny_videollama3_config())
    prepared = model.encode(chat_question(), frames_for())
    frames, rows, columns = prepared.vision["grid"].tolist()
    expected = slow_video_tokens(
        weights,
        prepared.vision["pixel_values"],
        (frames, rows, columns),
        vision_attention == "released",
    )
    (inputs,) = model.embed([prepared])
    shown = prepared.input_ids == model.placeholder_id
    torch.testing.assert_close(inputs.embeds[shown], expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(
        inputs.embeds[~shown], weights["model.embed_tokens.weight"][prepared.input_ids[~shown]]
    )


@torch.inference_mode()
def test_only_the_released_attention_lets_frames_mix(folder):
    """A change in the first frame reaches the second frame's tokens there, and nowhere else."""
    for vision_attention, mixes in (("isolated", False), ("released", True)):
        model = VideoLlama3.load(folder, vision_attention=vision_attention)
        frames = frames_for(2)
        changed = frames.copy()
        changed[0] = 255 - changed[0]
        first, second = (
            model.embed([model.encode(chat_question(), shown)])[0].embeds
            for shown in (frames, changed)
        )
        layout = model.encode(chat_question(), frames).layout
        moved = (first - second).abs().amax(-1)
        assert moved[layout.positions("frame[0]")].max() > 1e-2
        assert (moved[layout.positions("frame[1]")].max() > 1e-4) == mixes


def loaded(folder: Path, **options: Any) -> VideoLlama3:
    model = load_model("mapflow_videollama3", folder, device="cpu", **options)
    assert isinstance(model, VideoLlama3)
    return model


@torch.inference_mode()
def test_the_default_is_the_papers_model_and_others_are_named(folder):
    """Frames mix by default, as in the paper's analysis; a model that differs says so."""
    prepared = VideoLlama3.load(folder).encode(chat_question(), frames_for())
    default, released, isolated = (
        VideoLlama3.load(folder, **options).embed([prepared])[0].embeds
        for options in ({}, {"vision_attention": "released"}, {"vision_attention": "isolated"})
    )
    assert torch.equal(default, released)
    assert (default - isolated).abs().max() > 1e-2
    assert loaded(folder).name == loaded(folder, vision_attention="released").name == "tiny"
    other = loaded(folder, vision_attention="isolated", max_tokens="96")
    assert other.name == "tiny+isolated-vision-attention+96-max-tokens"
    assert run_identity("mapflow_videollama3", other, "paper")["model_args"] == {
        "vision_attention": "isolated",
        "max_tokens": 96,
    }
    with pytest.raises(MapflowError, match="vision_attention='eager' must be released or isolated"):
        VideoLlama3.load(folder, vision_attention="eager")  # type: ignore[arg-type]


@pytest.mark.parametrize("frames", [8, 16])
def test_a_clip_has_at_most_144_tokens_a_frame(tmp_path, frames):
    """Paper: 8 frames, at most 8×12×12 video tokens; the checkpoint itself allows 16,384."""
    folder = write_tiny_videollama3(tmp_path)
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"max_tokens": 16384}))
    config = folder / "config.json"
    settings = json.loads(config.read_text()) | {"max_position_embeddings": 16384}
    config.write_text(json.dumps(settings))
    shown = frames_for(frames, 14 * 15, 14 * 20)

    def tokens(**options: Any) -> int:
        model = VideoLlama3.load(folder, **options)
        return int(model.encode(chat_question(), shown).vision["grid"].prod()) // 4

    assert tokens() == frames * 10 * 13  # the largest grid of this shape within 144 tokens
    assert tokens(max_tokens=16384) == frames * 15 * 20
    with pytest.raises(MapflowError, match="max_tokens=0 must be at least 1"):
        VideoLlama3.load(folder, max_tokens=0)


def test_the_local_layout_is_the_same_model(tmp_path, model):
    """Its tower has a prefix more, and its tower's config and preprocessor lie in a folder beside
    it."""
    local = VideoLlama3.load(
        write_tiny_videollama3(tmp_path / "saved", tiny_videollama3_config(local=True))
    )
    expected = model.network.state_dict()
    assert local.network.state_dict().keys() == expected.keys()
    assert all(
        torch.equal(value, expected[name]) for name, value in local.network.state_dict().items()
    )
    assert local.preprocessing == model.preprocessing


def test_tied_embeddings_need_no_head(tmp_path):
    folder = write_tiny_videollama3(tmp_path, tiny_videollama3_config(tie_word_embeddings=True))
    language_model = VideoLlama3.load(folder).network.language_model
    assert language_model.lm_head.weight is language_model.model.embed_tokens.weight


def test_it_is_certified(model):
    assert [str(finding) for finding in verify(model) if not finding.passed] == []


def test_it_is_certified_with_isolated_frames(folder):
    model = VideoLlama3.load(folder, vision_attention="isolated")
    assert [str(finding) for finding in verify(model) if not finding.passed] == []


def test_half_precision_stays_near(folder, model):
    prepared = model.encode(chat_question(), frames_for())
    for vision_attention in ("isolated", "released"):
        full = (
            VideoLlama3.load(folder, vision_attention=vision_attention).embed([prepared])[0].embeds
        )
        half = VideoLlama3.load(folder, dtype="bfloat16", vision_attention=vision_attention)
        rounded = half.embed([prepared])[0].embeds
        assert rounded.dtype == torch.bfloat16
        assert (full - rounded).abs().mean() < 0.02 * full.abs().mean()


def test_network_can_be_built_without_memory():
    with torch.device("meta"):
        network = VideoLlama3Network.from_config_dict(
            tiny_videollama3_config(), tiny_vision_config(), vision_attention="released"
        )
    assert all(parameter.is_meta for parameter in network.parameters())


def test_clips_of_different_sizes_share_a_batch(model):
    prepared = [
        model.encode(chat_question(), frames_for(2 + n, 40 + 30 * n, 90, n)) for n in range(3)
    ]
    for item, together in zip(prepared, model.embed(prepared), strict=True):
        assert torch.equal(together.embeds, model.embed([item])[0].embeds)
        assert len(together) == len(item.layout) == len(item.input_ids)


def test_rendered_prompt(model):
    prepared = model.encode(chat_question(), frames_for(3), times=(0.0, 0.75, 2.26))
    ids, each = (
        prepared.input_ids.tolist(),
        int((prepared.input_ids == model.placeholder_id).sum()) // 3,
    )
    assert model.tokenizer.decode(ids, skip_special_tokens=False).replace(
        "<image>" * each, "<video>"
    ) == (
        "<|im_start|>user\nTime 0.0s:<video>,Time 0.8s:<video>,Time 2.3s:<video>\n"
        "Question: Where does the ball go?\nOptions:\n(A) to the left\n(B) to the right.\n"
        "Answer with the option's letter from the given choices"
        " directly.<|im_end|>\n<|im_start|>assistant\n"
    )


def test_layout_names_every_position(model):
    prepared = model.encode(chat_question(target=1), frames_for(3))

    def said(name: str) -> str:
        positions = prepared.layout.positions(name)
        return model.tokenizer.decode(
            prepared.input_ids[positions], skip_special_tokens=False
        ).replace("<image>", "")

    assert said("system") == "<|im_start|>user\n"
    assert said("frame[0]") == "Time 0.0s:"
    assert said("frame[2]") == ",Time 2.0s:"
    assert said("stem") == "Where does the ball go?\n"
    # a line's end belongs to the option before it, whether or not it is a token of its own
    assert said("false_options") == "(A) to the left\n"
    assert said("true_option") == "(B) to the right.\n"
    assert said("question") == (
        "Question: Where does the ball go?\nOptions:\n(A) to the left\n(B) to the right.\n"
    )
    assert said("template") == (
        "\nAnswer with the option's letter from the given choices"
        " directly.<|im_end|>\n<|im_start|>assistant"
    )
    assert said("last") == "\n"
    assert model.tokenizer.convert_ids_to_tokens(list(prepared.option_ids)) == ["A", "B"]


def test_system_text_comes_before_the_user(model):
    prompt = replace(PROMPT, system="Watch.", answer_prefix="(")
    prepared = model.encode(chat_question(prompt=prompt), frames_for())
    system = prepared.input_ids[prepared.layout.positions("system")]
    said = model.tokenizer.decode(system, skip_special_tokens=False)
    assert said == "<|im_start|>system\nWatch.<|im_end|>\n<|im_start|>user\n"
    assert model.tokenizer.decode(prepared.input_ids[-1:]) == "("


def test_token_compression_is_never_applied(model):
    """The config asks for it, but the paper's analysis switches it off: a still clip keeps all its
    tokens."""
    still = frames_for(1).repeat(3, axis=0)
    prepared = model.encode(chat_question(), still)
    frames, rows, columns = prepared.vision["grid"].tolist()
    assert int((prepared.input_ids == model.placeholder_id).sum()) == frames * rows * columns // 4


def test_prepare_reads_the_papers_frames(model, tmp_path):
    file = tmp_path / "clip.mp4"  # 24 frames, 8 a second
    write_clip(file, seed=1)
    prepared = model.prepare(chat_question(clip=Clip(str(file))))
    assert prepared.frame_indices == tuple(np.linspace(0, 23, 8, dtype=int).tolist())
    text = model.tokenizer.decode(prepared.input_ids, skip_special_tokens=False)
    assert "Time 0.0s:" in text and ",Time 3.0s:" in text
    trimmed = model.prepare(replace(chat_question(clip=Clip(str(file), 1.0, 2.0)), n_frames=3))
    assert trimmed.frame_indices == (8, 11, 15)
    assert trimmed.layout.n_frames == 3
    text = model.tokenizer.decode(trimmed.input_ids, skip_special_tokens=False)
    assert [part[:3] for part in text.split("Time ")[1:]] == ["1.0", "1.4", "2.0"]


def test_pathways_come_with_the_name(tmp_path):
    named = write_tiny_videollama3(
        tmp_path / "models--DAMO-NLP-SG--VideoLLaMA3-7B" / "snapshots" / "0"
    )
    pathways = VideoLlama3.load(named).pathways
    assert pathways is not None
    assert pathways.question_to_last == LayerSpan(21, 28)


def test_lmms_eval_hands_the_choice_of_attention_over(folder):
    from mapflow.model_adapters.lmms.models import model_class

    adapter = model_class("mapflow_videollama3")(
        pretrained=str(folder), device="cpu", vision_attention="isolated"
    )
    assert adapter.video_llm.name.endswith("+isolated-vision-attention")
    with pytest.raises(MapflowError, match="has no argument 'vision_attention'"):
        model_class("mapflow_internvl")(pretrained=str(folder), vision_attention="released")
    with pytest.raises(MapflowError, match="trust_remote_code is refused: code from a checkpoint"):
        model_class("mapflow_videollama3")(pretrained=str(folder), trust_remote_code=True)
    with pytest.raises(
        MapflowError, match="mapflow_videollama3 has no bundled checkpoint; give pretrained"
    ):
        model_class("mapflow_videollama3")()
    with pytest.raises(MapflowError, match="use --model mapflow_videollama3"):
        model_class("mapflow_internvl")(pretrained=str(folder), device="cpu")

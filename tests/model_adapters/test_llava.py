"""LLaVA-Video on a tiny random checkpoint: its network against a reference implementation, its
prompts, and a clip from a file."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_llava import (
    PLACEHOLDER,
    PROMPT,
    tiny_config,
    tiny_question,
    tiny_weights,
    write_tiny_llava,
)
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

from mapflow.model_adapters.families.llava.model import LlavaVideo
from mapflow.model_adapters.families.llava.network import LlavaNetwork
from mapflow.model_adapters.interventions import LayerSpan
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import Clip

# A square grid that divides evenly; and what the bundled goldens do not have: grouped heads,
# shards, overlapping bins.
VARIANTS = {
    "even": (tiny_config(), 1),
    "grouped, sharded, uneven": (tiny_config(frames=6, tokens=(4, 3), image=49, kv_heads=2), 4),
    "deep features": (tiny_config() | {"vision_feature_layer": -1}, 2),
    "embeddings as features": (tiny_config() | {"vision_feature_layer": 0}, 1),
}


@pytest.fixture(scope="module", params=VARIANTS.values(), ids=list(VARIANTS))
def variant(request, tmp_path_factory):
    config, shards = request.param
    return config, LlavaVideo.load(
        write_tiny_llava(tmp_path_factory.mktemp("tiny"), config, shards=shards)
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> LlavaVideo:
    return LlavaVideo.load(write_tiny_llava(tmp_path_factory.mktemp("tiny") / "tiny"))


def frames_for(model: LlavaVideo, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(
        0, 256, (model.network.n_frames, 60, 80, 3), dtype=np.uint8
    )


def bins(size: int, wanted: int) -> list[range]:
    """Adaptive pooling's rule: bin i covers floor(i·size/wanted) … ceil((i+1)·size/wanted), so bins
    may overlap."""
    return [range(i * size // wanted, math.ceil((i + 1) * size / wanted)) for i in range(wanted)]


def slow_video_tokens(config: dict, weights: dict[str, Tensor], pixels: Tensor) -> Tensor:
    """Tower by transformers alone, projector written out, pooling as nested means."""
    settings = {key: value for key, value in config["vision_config"].items() if key != "model_type"}
    tower = CLIPVisionModel(CLIPVisionConfig(**settings)).eval()
    prefix = "vision_tower."
    own = {
        name.removeprefix(prefix): value
        for name, value in weights.items()
        if name.startswith(prefix)
    }
    if not hasattr(tower, "vision_model"):
        own = {name.removeprefix("vision_model."): value for name, value in own.items()}
    tower.load_state_dict(own)
    features = tower(pixels, output_hidden_states=True).hidden_states[
        config["vision_feature_layer"]
    ][:, 1:]
    linear = [
        [weights[f"multi_modal_projector.linear_{n}.{leaf}"] for leaf in ("weight", "bias")]
        for n in (1, 2)
    ]
    hidden = (
        nn.functional.gelu(features @ linear[0][0].T + linear[0][1]) @ linear[1][0].T + linear[1][1]
    )
    side = config["vision_config"]["image_size"] // config["vision_config"]["patch_size"]
    grid = hidden.unflatten(1, (side, side))
    frames, rows, columns = config["pooling_shape"]
    return torch.stack(
        [
            torch.stack([grid[t, r, c] for t in times for r in heights for c in widths]).mean(0)
            for times in bins(len(grid), frames)
            for heights in bins(side, rows)
            for widths in bins(side, columns)
        ]
    )


@torch.inference_mode()
def test_forward_equals_the_reference(variant):
    config, model = variant
    weights = tiny_weights(config)
    prepared = model.encode(tiny_question(), frames_for(model))
    video = slow_video_tokens(config, weights, prepared.vision["pixel_values"])
    torch.testing.assert_close(
        model.network.encode_video(prepared.vision["pixel_values"][None])[0],
        video,
        rtol=1e-4,
        atol=1e-4,
    )
    settings = {key: value for key, value in config["text_config"].items() if key != "model_type"}
    llama = LlamaForCausalLM(LlamaConfig(**settings)).eval()
    prefix = "language_model."
    llama.load_state_dict(
        {n.removeprefix(prefix): v for n, v in weights.items() if n.startswith(prefix)}
    )
    embeds = llama.model.embed_tokens(prepared.input_ids)
    embeds[prepared.layout.positions("video")] = video
    expected = llama(inputs_embeds=embeds[None]).logits[0]
    ours = model.network.language_model(
        inputs_embeds=model.embed([prepared])[0].embeds[None]
    ).logits[0]
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-3)


def test_clips_of_a_batch_do_not_mix(model):
    prepared = [
        model.encode(tiny_question(stem=f"{'very ' * n}?"), frames_for(model, n)) for n in range(3)
    ]
    for item, together in zip(prepared, model.embed(prepared), strict=True):
        torch.testing.assert_close(
            together.embeds, model.embed([item])[0].embeds, rtol=0, atol=1e-5
        )
        assert len(together) == len(item.layout) == len(item.input_ids)


def test_network_can_be_built_without_memory():
    with torch.device("meta"):
        network = LlavaNetwork.from_config_dict(tiny_config())
    assert all(parameter.is_meta for parameter in network.parameters())
    assert network.pooling_shape == (4, 2, 2)


def test_half_precision_stays_near(model, tmp_path):
    half = LlavaVideo.load(write_tiny_llava(tmp_path), dtype="bfloat16")
    pixels = model.encode(tiny_question(), frames_for(model)).vision["pixel_values"][None]
    with torch.inference_mode():
        full, rounded = (
            model.network.encode_video(pixels),
            half.network.encode_video(pixels.bfloat16()),
        )
    assert rounded.dtype == torch.bfloat16
    assert (full - rounded).abs().mean() < 0.02 * full.abs().mean()


def test_rendered_prompt(model):
    ids = model.encode(tiny_question(), frames_for(model)).input_ids.tolist()
    shown = math.prod(model.network.pooling_shape)
    first = ids.index(model.placeholder_id)
    assert ids[first : first + shown] == [model.placeholder_id] * shown
    text = model.tokenizer.decode(ids[:first] + ids[first + shown - 1 :], skip_special_tokens=False)
    assert text.removeprefix("<s>").replace(" ", "") == (
        "Watch the ball.\n USER: <image>\n USER: Question: Where does the ball go?\nOptions:\n(A)"
        " the left\n(B) the right"
        " \nOnly give the best option. ASSISTANT:Best option:("
    ).replace(" ", "")


def test_layout_names_every_position(model):
    prepared = model.encode(tiny_question(target=1), frames_for(model))
    layout = prepared.layout
    tokens = model.tokenizer.convert_ids_to_tokens(prepared.input_ids.tolist())

    def said(name: str) -> str:
        return "".join(tokens[position] for position in layout.positions(name).tolist()).replace(
            "▁", " "
        )

    assert said("system") == "<s> Watch the ball.<0x0A> USER: "
    assert said("stem") == "Where does the ball go?"
    assert said("true_option") == "(B) the right"
    assert said("false_options") == "(A) the left"
    assert (
        said("question")
        == " Question: Where does the ball go?<0x0A>Options:<0x0A>(A) the left<0x0A>(B) the right"
    )
    assert (
        said("template") == " <0x0A> USER: <0x0A>Only give the best option. ASSISTANT:Best option"
    )
    assert said("last") == ":("
    assert said("frame[2]") == PLACEHOLDER * 4


def test_answer_ids(model):
    spelled = model.tokenizer.convert_ids_to_tokens
    prepared = model.encode(tiny_question(target=1), frames_for(model))
    assert spelled(list(prepared.option_ids)) == ["A", "B"]
    assert spelled(prepared.target_id) == "B"
    prompt = replace(
        PROMPT, options_label="", instruction="", answer_prefix="\nThe ball goes to the"
    )
    opened = model.encode(
        tiny_question(options=(), target="left", prompt=prompt), frames_for(model)
    )
    assert opened.option_ids == ()
    assert spelled(opened.target_id) == "▁left"
    with pytest.raises(MapflowError, match="'option"):
        opened.layout.positions("options")


def test_wrong_number_of_frames(model):
    with pytest.raises(MapflowError, match="takes 4 frames or a multiple of them, not 3"):
        model.encode(tiny_question(), frames_for(model)[:3])


def test_twice_the_frames_share_their_positions_by_pooling(model):
    frames, others = frames_for(model), frames_for(model, seed=1)
    woven = np.stack([frames, others], 1).reshape(-1, *frames.shape[1:])
    single, other, double = (
        model.embed([model.encode(tiny_question(), shown)])[0].embeds
        for shown in (frames, others, woven)
    )
    torch.testing.assert_close(double, (single + other) / 2, atol=1e-5, rtol=0)


def test_pathways_come_with_the_folder_or_with_the_name(tmp_path):
    assert LlavaVideo.load(write_tiny_llava(tmp_path / "plain")).pathways is None
    named = write_tiny_llava(
        tmp_path / "models--byminji--LLaVA-NeXT-13B-Video-FT" / "snapshots" / "0"
    )
    pathways = LlavaVideo.load(named).pathways
    assert pathways is not None
    assert pathways.question_to_last == LayerSpan(16, 30)
    (named / "pathways.yaml").write_text(
        "cross_frame: 1-2\nvideo_to_question: 2-3\nquestion_to_last: 3-4\n"
    )
    pathways = LlavaVideo.load(named).pathways
    assert pathways is not None
    assert pathways.cross_frame == LayerSpan(1, 2)
    (named / "pathways.yaml").write_text("cross_frame: 1-2\n")
    with pytest.raises(MapflowError, match=r"pathways\.yaml lacks 'video_to_question'"):
        LlavaVideo.load(named)


def test_a_saved_network_loads_again(model, tmp_path):
    """Saving is the inverse prefix change; the file then holds exactly the released layout's
    names."""
    folder = write_tiny_llava(tmp_path)
    saved = load_file(folder / "model.safetensors")
    ((old, new),) = LlavaNetwork.renames
    names = {
        old + n.removeprefix(new) if n.startswith(new) else n for n in model.network.state_dict()
    }
    assert names == set(saved)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Clip:
    """Ten frames of a rising grey level, losslessly encoded."""
    av = pytest.importorskip("av")
    path = tmp_path_factory.mktemp("video") / "grey.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=5)
        stream.width, stream.height, stream.pix_fmt = 32, 28, "bgr0"
        for level in range(10):
            pixels = np.full((28, 32, 3), 20 * level, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return Clip(str(path))


def test_prepare_reads_the_papers_frames(model, clip):
    prepared = model.prepare(tiny_question(clip=clip))
    assert prepared.frame_indices == (1, 3, 5, 8)
    assert prepared.repeated_frames == 0
    middle = prepared.vision["pixel_values"].mean((1, 2, 3))
    levels = torch.tensor([20.0 * index / 255 for index in prepared.frame_indices])
    mean, std = torch.tensor(model.preprocessing.mean), torch.tensor(model.preprocessing.std)
    torch.testing.assert_close(middle, ((levels[:, None] - mean) / std).mean(1), rtol=0, atol=1e-3)


def test_short_clips_repeat_frames_and_say_so(model, clip):
    prepared = model.prepare(tiny_question(clip=replace(clip, start=0.0, end=0.3)))
    assert len(prepared.frame_indices) == 4
    assert prepared.repeated_frames == 4 - len(set(prepared.frame_indices)) > 0

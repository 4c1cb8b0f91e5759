"""Training of the bundled model against the adapter and the instrument.

Training has its own code for prompts, frames and masks, because it runs on a GPU in batches. The
trained model is used through the LLaVA adapter and the instrument. These tests compare the two part
by part.
"""

from __future__ import annotations

import json
import math
import random
import re
import subprocess
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mapflow.model_adapters.conversation import load_tokenizer
from mapflow.model_adapters.families.llava.model import LlavaVideo
from mapflow.model_adapters.families.llava.network import LlavaNetwork
from mapflow.model_adapters.interventions import DecoderInputs
from mapflow.model_adapters.mini import planted, samples
from mapflow.model_adapters.mini.network import (
    forward,
    load_weights,
    mini_config,
    new_network,
    save_checkpoint,
)
from mapflow.model_adapters.mini.pixels import look, reduction, sampled_times
from mapflow.model_adapters.mini.samples import (
    FIRST_MIX,
    FORMATS,
    as_question,
    converse,
    encode,
    load_prompt,
    make_rows,
    questions,
)
from mapflow.model_adapters.mini.train import Settings, train
from mapflow.model_adapters.video.sampling import segment_midpoints
from mapflow.results.contract.errors import MapflowError
from mapflow.tasks.motion import build
from mapflow.tasks.motion.render import batch_scenes
from mapflow.tasks.motion.scenes import fingerprint

KINDS = {"system": planted.SYSTEM, "template": planted.TEMPLATE, "last": planted.LAST}


@pytest.fixture(scope="module")
def tokenizer():
    return samples.benchmark_tokenizer()


@pytest.fixture(scope="module")
def drawn() -> list:
    """Twelve scenes with one question each."""
    return list(islice(questions(random.Random("tests"), frozenset()), 12))


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory) -> Path:
    """A checkpoint with random weights in the shape of the bundled model."""
    torch.manual_seed(0)
    config = mini_config(tokenizer)
    path = tmp_path_factory.mktemp("mini") / "random"
    save_checkpoint(new_network(config), config, tokenizer, path)
    return path


@pytest.fixture(scope="module")
def adapter(folder) -> LlavaVideo:
    return LlavaVideo.load(folder, dtype="float32")


def clip_frames(scene) -> tuple[np.ndarray, tuple[int, ...]]:
    """The frames that the adapter samples from a scene's clip, without a video file."""
    indices = segment_midpoints(build.N_FRAMES, float(build.FRAMES_PER_SECOND), planted.N_FRAMES)
    return build.clip(scene)[list(indices)].numpy(), indices


def adapter_segments(layout) -> list[int]:
    """A TokenLayout in the coarser segments of training."""
    coarse = [
        planted.FRAMES[segment.index]
        if segment.kind == "frame"
        else KINDS.get(segment.kind, planted.QUESTION)
        for segment in layout.segments
    ]
    return [coarse[index] for index in layout.segment_of]


def test_tokenizer_keeps_letters_alone_and_offsets_true(tokenizer):
    for letter in "ABCDEFG":
        text = f"Best option:({letter}) Up\n({letter}) x"
        encoded = tokenizer(text, return_offsets_mapping=True)
        tokens = tokenizer.convert_ids_to_tokens(encoded["input_ids"])
        assert tokens.count(letter) == 2
        assert [tokens[index - 1] for index, token in enumerate(tokens) if token == letter] == [
            "(",
            "(",
        ]
        spans = encoded["offset_mapping"]
        assert all(
            text[a:b] == letter
            for token, (a, b) in zip(tokens, spans, strict=True)
            if token == letter
        )
        assert tokenizer.decode(encoded["input_ids"], skip_special_tokens=True).strip() == text


def test_tokenizer_splits_words_unknown_to_it_into_characters_or_bytes(tokenizer):
    text = "Zebra é <image> 7\n日本?"
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.convert_tokens_to_ids("<image>") in ids
    for word in ("Zebra é", "日本?"):
        assert word in tokenizer.decode(ids)


def test_every_word_of_a_prompt_is_one_token(tokenizer, drawn):
    prompt = load_prompt()
    for scene, ask in drawn:
        for fmt in FORMATS:
            text = "".join(piece.text for piece in converse(prompt, scene, ask, fmt))
            words = re.findall(
                r"[A-Za-z]+|[0-9]|[^A-Za-z0-9\s▁]", text.replace("<image>", "").replace("</s>", "")
            )
            tokens = tokenizer.tokenize(text.replace("</s>", ""))
            spoken = [
                token.lstrip("▁") for token in tokens if token not in ("<image>", "<0x0A>", "▁")
            ]
            assert spoken == words


def test_prompts_and_segments_are_the_adapters(tokenizer, adapter, drawn):
    prompt = load_prompt()
    for scene, ask in drawn:
        prefix, ids, segments = encode(tokenizer, [converse(prompt, scene, ask, "choice")])
        prepared = adapter.encode(as_question(prompt, ask), *clip_frames(scene))
        n_answer = len(tokenizer(f"({'ABCD'[ask.target]}) {ask.answer}</s>")["input_ids"]) - 3
        n_video = math.prod(adapter.network.pooling_shape)
        length = len(prepared.input_ids)
        mine = [*prefix[:-1], *[prefix[-1]] * n_video, *ids[0].tolist()]
        assert mine[:length] == prepared.input_ids.tolist()
        assert mine[length] == prepared.target_id
        named = planted.segment_codes(len(prefix) - 1, segments)[0].tolist()
        assert named[:length] == adapter_segments(prepared.layout)
        assert set(named[length:]) == {planted.ANSWER}
        padding = [token for token in mine[length:] if token == tokenizer.pad_token_id]
        assert len(mine) - length - len(padding) == n_answer
        assert mine[length + n_answer - 1] == tokenizer.eos_token_id


def test_pixels_are_the_adapters_up_to_rounding(adapter, drawn):
    batch = batch_scenes([scene for scene, _ in drawn])
    seen = look(batch, sampled_times(), reduction(), artefacts=False)
    for (scene, _), pixels in zip(drawn, seen, strict=True):
        frames, _ = clip_frames(scene)
        reference = adapter.preprocessing(frames)
        step = 1 / 255 / min(adapter.preprocessing.std)
        assert (pixels - reference).abs().max() <= 1.5 * step


def test_artefacts_are_small_and_keep_the_picture(drawn):
    batch = batch_scenes([scene for scene, _ in drawn])
    torch.manual_seed(0)
    clean, worn = (
        look(batch, sampled_times(), reduction(), artefacts) for artefacts in (False, True)
    )
    assert not torch.equal(clean, worn)
    assert (clean - worn).abs().mean() < 0.1 * clean.std()


@pytest.mark.parametrize("intervention", [planted.FULL, planted.EFFECTIVE], ids=str)
def test_masks_are_the_instruments(adapter, drawn, intervention):
    """The coarse segments of training against the finer ones of the adapter's layout."""
    prompt, n_layers = load_prompt(), adapter.decoder.n_layers
    allowed = planted.allowed_segments(intervention, n_layers)
    for scene, ask in drawn:
        prepared = adapter.encode(as_question(prompt, ask), *clip_frames(scene))
        compiled = intervention.compile(prepared.layout, n_layers, planted.RANGES)
        codes = torch.tensor([adapter_segments(prepared.layout)])
        masks = planted.token_masks(allowed[None], torch.zeros(1, dtype=torch.long), codes)
        for layer, mask in enumerate(masks):
            assert torch.equal(mask[0, 0], compiled.token_mask(layer))


@pytest.mark.parametrize("intervention", [planted.FULL, planted.EFFECTIVE], ids=str)
def test_forward_is_the_decoders(tokenizer, folder, adapter, drawn, intervention):
    """The forward pass of training against the instrument's decoder, on the same weights."""
    config, prompt = json.loads((folder / "config.json").read_text()), load_prompt()
    network = new_network(config)
    released, here = LlavaNetwork.renames[0]
    weights = {
        name.replace(released, here): tensor.float()
        for name, tensor in load_file(folder / "model.safetensors").items()
    }
    network.load_state_dict(weights)
    scenes, asks = zip(*drawn[:3], strict=True)
    pieces = [
        converse(prompt, scene, ask, "choice") for scene, ask in zip(scenes, asks, strict=True)
    ]
    prefix, ids, segments = encode(tokenizer, pieces)
    codes = planted.segment_codes(len(prefix) - 1, segments)
    allowed = planted.allowed_segments(intervention, 12)[None]
    masks = planted.token_masks(allowed, torch.zeros(3, dtype=torch.long), codes)
    pixels = look(batch_scenes(scenes), sampled_times(), reduction(), artefacts=False)
    with torch.no_grad():
        hidden = forward(network, pixels, torch.tensor(prefix[:-1]), ids, masks)
        last = (segments == planted.LAST).long().argmax(1)
        logits = network.language_model.lm_head(hidden[range(3), last])
    for index, ask in enumerate(asks):
        prepared = adapter.encode(as_question(prompt, ask), *clip_frames(scenes[index]))
        text = adapter.network.language_model.get_input_embeddings()(prepared.input_ids)
        text[prepared.layout.positions("video")] = adapter.network.encode_video(
            pixels[index : index + 1]
        )[0]
        compiled = intervention.compile(prepared.layout, 12, planted.RANGES)
        (expected,) = adapter.decoder.answer_logits([DecoderInputs(text.detach())], [[compiled]])
        torch.testing.assert_close(logits[index], expected[0], atol=1e-4, rtol=1e-4)


def test_training_never_meets_a_held_out_question():
    asked = list(islice(questions(random.Random(7), frozenset()), 30))
    avoid = frozenset(fingerprint(*pair) for pair in asked[::3])
    kept = list(islice(questions(random.Random(7), avoid), 20))
    assert kept == [pair for pair in asked if fingerprint(*pair) not in avoid][:20]
    committed = build.held_out_fingerprints()
    seed = json.loads((build.DATA / "held_out.json").read_text())["seed"]
    scene, (ask,) = build.held_out(seed, "direction", 1)[0]
    assert fingerprint(scene, ask) in committed


def test_rows_depend_on_the_seed_alone(tokenizer):
    first, again, other = (
        make_rows(seed, 40, FIRST_MIX, tokenizer, frozenset()) for seed in ("a", "a", "b")
    )
    assert torch.equal(first.ids, again.ids) and torch.equal(first.scenes.knots, again.scenes.knots)
    assert not torch.equal(first.ids, other.ids)
    factory = samples.RowFactory(tokenizer, workers=2, chunk=16)
    try:
        pooled, alone = (factory.order("a", n, FIRST_MIX)() for n in (40, 16))
    finally:
        factory.close()
    assert len(pooled) == 40
    assert torch.equal(pooled[:16].ids, alone.ids) and torch.equal(
        pooled[:16].scenes.cuts, alone.scenes.cuts
    )
    assert 0 < int(first.choices.sum()) < 40


def test_two_steps_of_training_write_a_checkpoint_of_the_released_layout(tmp_path, golden_root):
    settings = Settings(
        steps=2,
        time_limit=600.0,
        batch=4,
        rows=4,
        pathways=True,
        seed=0,
        learning_rate=1e-3,
        log_every=10,
    )
    metrics = train(tmp_path / "mini", settings, workers=1, device=torch.device("cpu"))
    assert metrics["steps"] == 2
    model = LlavaVideo.load(tmp_path / "mini")
    assert model.pathways == planted.RANGES
    names, dtypes, size = stored(tmp_path / "mini" / "model.safetensors")
    assert dtypes == {"BF16"} and size <= 16 * 2**20
    released = next(path for path in sorted(golden_root.glob("pllava/model*/model.safetensors")))
    assert {without_numbers(name) for name in names} == {
        without_numbers(name) for name in stored(released)[0]
    }


def test_training_goes_on_from_a_checkpoint_s_weights(folder, tmp_path):
    """With a learning rate of zero, training returns the weights that it started from."""
    settings = Settings(
        steps=1,
        time_limit=600.0,
        batch=2,
        rows=2,
        pathways=True,
        seed=5,
        learning_rate=0.0,
        continue_from=str(folder),
    )
    train(tmp_path / "same", settings, workers=1, device=torch.device("cpu"))
    begun, ended = (load_file(place / "model.safetensors") for place in (folder, tmp_path / "same"))
    assert begun.keys() == ended.keys()
    assert all(torch.equal(begun[name], ended[name]) for name in begun)
    train(tmp_path / "on", replace(settings, learning_rate=1e-2, warmup=1), 1, torch.device("cpu"))
    moved = load_file(tmp_path / "on/model.safetensors")
    assert 0 < max(float((moved[name] - begun[name]).abs().max()) for name in begun) < 0.1


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda weights: weights.popitem(), "lacks "),
        (lambda weights: weights.update(stranger=torch.zeros(1)), "has the unknown stranger"),
        (
            lambda weights: weights.update({min(weights): torch.zeros(3, 3)}),
            "does not fit this network",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(folder, tmp_path, spoil, said):
    weights = load_file(folder / "model.safetensors")
    spoil(weights)
    save_file(weights, tmp_path / "model.safetensors")
    network = new_network(json.loads((folder / "config.json").read_text()))
    with pytest.raises(MapflowError, match=said):
        load_weights(network, tmp_path)


def without_numbers(name: str) -> str:
    return re.sub(r"layers\.\d+\.", "layers.", name)


def stored(file: Path) -> tuple[set[str], set[str], int]:
    with safe_open(file, "pt") as tensors:
        names = set(tensors.keys())
        dtypes = {tensors.get_slice(name).get_dtype() for name in names}
    return names, dtypes, file.stat().st_size


def test_bundled_tokenizers_are_the_ones_that_training_builds(tokenizer):
    for name in ("natural", "pathways"):
        bundled = load_tokenizer(Path(samples.__file__).parent / name)
        assert bundled.get_vocab() == tokenizer.get_vocab()


def test_training_imports_no_evaluation_harness_and_no_video_library():
    code = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(('lmms_eval', 'datasets', 'av')))\n"
        "import mapflow.model_adapters.mini.train\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

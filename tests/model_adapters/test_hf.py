"""The generic adapter on tiny random checkpoints of each family, against transformers' own forward.

The reference implementation of an intervention here is transformers' eager attention with a
wrong-side-out mask: for every prompt and intervention one plain forward of the whole model, pixels
included, in which a patched eager function takes its mask from loops over named positions
(tests/interventions/naive.py). It shares no code with the instrument."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_hf import FAMILIES, write_tiny_hf

from mapflow.model_adapters.families.hf.model import HfVideo, clip_times
from mapflow.model_adapters.inference.answering import answer
from mapflow.model_adapters.interventions import PathwayRanges, parse_intervention
from mapflow.model_adapters.interventions.kernels.attention import EAGER, SDPA
from mapflow.model_adapters.video.reader import SampledFrames
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import Clip, Prompt, Question

sys.path.append(str(Path(__file__).parents[1] / "interventions"))
import naive

LAYERS = 4
PROMPT = Prompt(
    system="",
    stem_label="Question: ",
    options_label="\nOptions:\n",
    option="({letter}) {text}",
    option_separator="\n",
    instruction="\nAnswer with the option's letter from the given choices directly.",
    answer_prefix="",
)
RANGES = PathwayRanges.from_mapping(
    {"cross_frame": "1-2", "video_to_question": "2-3", "question_to_last": "3-3"}, "the test"
)
INTERVENTIONS = (
    "effective",
    "effective-strict",
    "video->question@2-3",
    "knockout:video->last@center=2,window=3",
    "keep:all->system+all->last@2-4",
    "cross-frame@1-2+frame[1]->option[0]",
)


def ask(
    stem: str = "Which way does the ball roll?", options=("to the left", "to the right"), **changes
) -> Question:
    fields = {
        "question_id": "tiny-1",
        "video_id": "tiny",
        "task": "tiny",
        "clip": Clip("tiny.mp4"),
        "target": 1,
        "protocol": "paper",
        "prompts": {"chat": PROMPT},
    }
    return Question(stem=stem, options=tuple(options), **{**fields, **changes})


def clip(n: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (n, 16, 24, 3), dtype=np.uint8)


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, tmp_path_factory) -> Path:
    return write_tiny_hf(tmp_path_factory.mktemp("hf") / request.param, request.param, LAYERS)


@pytest.fixture(scope="module")
def model(folder) -> HfVideo:
    loaded = HfVideo.load(folder)
    loaded.pathways = RANGES
    return loaded


@pytest.fixture(autouse=True)
def implementation(request):
    """Tests may choose another attention function; the next test finds ours again."""
    yield
    if "model" in request.fixturenames:
        request.getfixturevalue("model").decoder.core.set_attn_implementation(SDPA)


def compiled(model: HfVideo, prepared, text: str):
    return parse_intervention(text).compile(
        prepared.layout, model.decoder.n_layers, model.pathways, prepared.question.question_id
    )


def last_hidden(model: HfVideo, run) -> torch.Tensor:
    """What the decoder gives at the last position while `run()` runs."""
    kept = []
    hook = model.decoder.core.register_forward_hook(
        lambda *seen: kept.append(seen[-1].last_hidden_state[0, -1])
    )
    try:
        run()
    finally:
        hook.remove()
    return kept[-1]


@pytest.mark.parametrize(("ours", "theirs"), [(SDPA, "sdpa"), (EAGER, "eager")])
def test_full_is_transformers_own_forward_bit_for_bit(model, ours, theirs):
    prepared = model.encode(ask(), clip())
    core = model.decoder.core
    core.set_attn_implementation(theirs)
    plain = last_hidden(model, lambda: model.plain_logits(prepared))
    inputs = model.embed([prepared])
    core.set_attn_implementation(ours)
    full = last_hidden(
        model, lambda: model.decoder.answer_logits(inputs, [[compiled(model, prepared, "full")]])
    )
    assert torch.equal(full, plain)


def naive_prompt(prepared) -> naive.Prompt:
    segments = [prepared.layout.segments[i] for i in prepared.layout.segment_of.tolist()]
    return naive.Prompt(tuple((s.kind, s.index) for s in segments), prepared.layout.true_option)


def naive_spec(text: str) -> naive.Spec:
    """The same intervention as plain data, written by hand."""
    ranges = ((1, 2), (2, 3), (3, 3))
    terms = {
        "effective": (naive.Term("effective"),),
        "effective-strict": (naive.Term("effective-strict"),),
        "video->question@2-3": (naive.Term("route", "video", "question", (2, 3)),),
        "knockout:video->last@center=2,window=3": (
            naive.Term("knockout", "video", "last", window=("center", 2, 3)),
        ),
        "keep:all->system+all->last@2-4": (
            naive.Term("route", "all", "system"),
            naive.Term("route", "all", "last", (2, 4)),
        ),
        "cross-frame@1-2+frame[1]->option[0]": (
            naive.Term("route", "cross-frame", "", (1, 2)),
            naive.Term("route", "frame[1]", "option[0]"),
        ),
    }
    return naive.Spec(terms[text], keep=text.startswith("keep:"), default_ranges=ranges)


def masked_plain_logits(
    model: HfVideo, prepared, masks: list[torch.Tensor], monkeypatch
) -> torch.Tensor:
    """The whole model's own forward, its language model's eager attention masked layer by layer."""
    core = model.decoder.core
    core.set_attn_implementation("eager")
    attentions = [m for m in core.modules() if hasattr(m, "layer_idx") and hasattr(m, "q_proj")]
    module = sys.modules[type(attentions[0]).__module__]

    def eager(attention, query, key, value, attention_mask, scaling, dropout=0.0, **options):
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        if attention in attentions:
            allowed = masks[attention.layer_idx]
            scores = (query @ key.mT * scaling).masked_fill(~allowed, -torch.inf)
            weights = torch.nan_to_num(scores.softmax(-1))
        else:  # the vision tower, where it shares the function's name
            scores = query @ key.mT * scaling
            weights = (scores if attention_mask is None else scores + attention_mask).softmax(-1)
        return (weights @ value).transpose(1, 2), weights

    monkeypatch.setattr(module, "eager_attention_forward", eager)
    with torch.inference_mode():
        return model.plain_logits(prepared)


@pytest.mark.parametrize("text", INTERVENTIONS)
def test_interventions_equal_a_naive_masked_forward(model, text, monkeypatch):
    prepared = model.encode(ask(), clip())
    prompt, spec = naive_prompt(prepared), naive_spec(text)
    masks = [
        torch.tensor(naive.allowed(prompt, spec, layer + 1, LAYERS)) for layer in range(LAYERS)
    ]
    slow = masked_plain_logits(model, prepared, masks, monkeypatch)
    model.decoder.core.set_attn_implementation(SDPA)
    (fast,) = model.decoder.answer_logits(
        model.embed([prepared]),
        [[compiled(model, prepared, "full"), compiled(model, prepared, text)]],
    )
    torch.testing.assert_close(fast[1], slow, rtol=0, atol=2e-5)
    assert (fast[0] - fast[1]).abs().max() > 1e-2, (
        "an intervention that changes nothing proves nothing"
    )


def test_random_blocking_equals_a_naive_masked_forward(model, monkeypatch):
    prepared = model.encode(ask(), clip())
    item = compiled(model, prepared, "random:ratio=0.3,seed=5")
    n = len(prepared.layout)
    masks = [
        torch.ones(n, n, dtype=torch.bool).tril() & ~item.blocked(layer) for layer in range(LAYERS)
    ]
    assert all(int((~m).sum()) == n * (n - 1) // 2 + int(n * (n + 1) // 2 * 0.3) for m in masks)
    slow = masked_plain_logits(model, prepared, masks, monkeypatch)
    model.decoder.core.set_attn_implementation(SDPA)
    (fast,) = model.decoder.answer_logits(model.embed([prepared]), [[item]])
    torch.testing.assert_close(fast[0], slow, rtol=0, atol=2e-5)


def test_layout_tiles_the_rendered_chat(model):
    """Joined, the tokens of each part say what was asked; every video embedding lies in a frame,
    and only there."""
    prepared = model.encode(ask(), clip())
    layout, tok = prepared.layout, model.tokenizer

    def said(name: str) -> str:
        return tok.decode(prepared.input_ids[layout.positions(name)], skip_special_tokens=False)

    assert len(layout) == len(prepared.input_ids)
    assert said("stem") == " Which way does the ball roll?"
    assert said("option[0]") == "(A) to the left" and said("option[1]") == "(B) to the right"
    assert said("true_option") == said("option[1]")
    assert layout.positions("last").tolist() == [len(layout) - 1]
    (inputs,) = model.embed([prepared])
    table = model.decoder.core.get_input_embeddings()(prepared.input_ids)
    visual = (inputs.embeds != table).any(-1).nonzero().flatten()
    assert set(visual.tolist()) <= set(layout.positions("video").tolist())
    steps = layout.n_frames
    assert steps == 4 // model.frames_per_segment
    per_frame = [
        len(set(visual.tolist()) & set(layout.positions(f"frame[{i}]").tolist()))
        for i in range(steps)
    ]
    assert (
        per_frame[0] > 0
        and set(per_frame[:-1]) <= {per_frame[0]}
        and per_frame[-1] - per_frame[0] in (0, 1)
    )


def test_a_frame_segment_holds_that_frames_pixels(model):
    """Changing one source frame changes the embeddings of its own segment; towers that look across
    frames aside."""
    frames, changed = clip(), clip()
    changed[0] = clip(seed=9)[0]
    one, other = (model.encode(ask(), each) for each in (frames, changed))
    before, after = (model.embed([each])[0].embeds for each in (one, other))
    if len(before) == len(after):
        moved = (before - after).abs().amax(-1) > 1e-4
        segments = {one.layout.segment_of[i].item() for i in moved.nonzero().flatten()}
        names = {str(one.layout.segments[i]) for i in segments}
        assert names == {"frame[0]"}


def test_dropped_tokens_keep_their_frames(tmp_path):
    """VideoLLaMA3 drops tokens that repeat the frame before: a frame may have fewer, or none."""
    model = HfVideo.load(write_tiny_hf(tmp_path, "video_llama_3", LAYERS))
    frames = clip()
    frames[1] = frames[0]
    frames[3, :8] = frames[2, :8]
    prepared = model.encode(ask(), frames)
    ids = [prepared.input_ids[prepared.layout.positions(f"frame[{i}]")] for i in (0, 2)]
    placeholder = model.model.config.video_token_id
    kept = prepared.vision["video_compression_mask"].view(4, -1).sum(1).tolist()
    assert kept[1] < kept[0] and kept[3] < kept[0], "the processor has to drop some"
    assert [int((each == placeholder).sum()) for each in ids] == [kept[0], kept[2]]
    assert int((prepared.input_ids == placeholder).sum()) == sum(kept)


def test_letters_are_the_tokens_that_follow_the_prompt(model):
    prepared = model.encode(ask(), clip())
    ended = model.tokenizer.decode(prepared.input_ids[-1:])
    expected = ["A", "B"] if ended == "\n" else [" A", " B"]
    assert [model.tokenizer.decode([token]) for token in prepared.option_ids] == expected
    assert prepared.target_id == prepared.option_ids[1]


def test_mrope_positions_are_the_models_own(model):
    prepared = model.encode(ask(), clip())
    (inputs,) = model.embed([prepared])
    if inputs.position_ids is None or len(inputs.position_ids) == 1:
        assert inputs.next_position == len(prepared.input_ids)
        return
    grid = prepared.vision["video_grid_thw"]
    options = {"video_grid_thw": grid, "attention_mask": torch.ones_like(prepared.input_ids[None])}
    options |= {
        k: prepared.vision[k]
        for k in ("second_per_grid_ts", "mm_token_type_ids")
        if k in prepared.vision
    }
    expected, delta = model.model.model.get_rope_index(prepared.input_ids[None], **options)
    assert torch.equal(inputs.position_ids, expected[:, 0])
    assert inputs.next_position == len(prepared.input_ids) + int(delta)


def test_records_of_several_questions_and_interventions(model):
    prepared = [
        model.encode(ask(), clip()),
        model.encode(
            ask("Which?", ("up", "down", "up again"), question_id="tiny-2", target=0), clip(seed=3)
        ),
    ]
    interventions = [parse_intervention(text) for text in ("full", "effective", "random:seed=1")]
    together = answer(model, prepared, interventions)
    for item, records in zip(prepared, together, strict=True):
        (alone,) = answer(model, [item], interventions)
        for a, b in zip(records, alone, strict=True):
            assert a.option_probs == pytest.approx(b.option_probs, abs=1e-5)
            assert a.edges_kept == b.edges_kept and a.prediction == b.prediction
        assert records[1].edges_kept == records[2].edges_kept < records[0].edges_kept


def test_cached_decoding_equals_generate_of_transformers(model):
    prepared = model.encode(ask(options=(), target="left", max_new_tokens=5), clip())
    (inputs,) = model.embed([prepared])
    tokens, _ = model.decoder.generate(inputs, [compiled(model, prepared, "full")], 5, [])
    model.model.generation_config.eos_token_id = None
    core = model.decoder.core
    core.set_attn_implementation("sdpa")
    expected = model.model.generate(
        **model._inputs(prepared),
        max_new_tokens=5,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    assert tokens[0] == expected[0, len(prepared.input_ids) :].tolist()


def test_capture_leaves_no_hook_and_names_what_it_does_not_know(model):
    prepared = model.encode(ask(), clip())
    core = model.decoder.core
    hooks = len(core._forward_pre_hooks)
    model.embed([prepared])
    assert len(core._forward_pre_hooks) == hooks

    def stranger(module, args, kwargs):
        return args, {**kwargs, "cross_attention_states": torch.zeros(1)}

    handle = core.register_forward_pre_hook(stranger, with_kwargs=True, prepend=True)
    try:
        with pytest.raises(MapflowError, match="also receives cross_attention_states"):
            model.embed([prepared])
    finally:
        handle.remove()


def test_the_vision_tower_keeps_its_own_attention(folder):
    import transformers

    untouched = transformers.AutoModelForImageTextToText.from_pretrained(
        folder
    ).config.vision_config
    model = HfVideo.load(folder)
    assert (
        model.model.config.vision_config._attn_implementation
        == untouched._attn_implementation
        != SDPA
    )
    assert model.decoder.core.config._attn_implementation == SDPA


@pytest.mark.parametrize(
    ("family", "said"),
    [
        ("video_llama_3", ("Time 1.5s:", "Time 4.5s:")),
        ("qwen3_vl", ("<2.0 seconds>", "<4.0 seconds>")),
        ("smolvlm", ("a 0:00:06 [", "from 00:01:", "from 00:04:")),
    ],
)
def test_processors_are_told_the_frames_times(tmp_path, family, said):
    model = HfVideo.load(write_tiny_hf(tmp_path, family, LAYERS))
    times = {"fps": 2.0, "total_num_frames": 12, "duration": 6.0, "frames_indices": [3, 5, 7, 9]}
    prepared = model.encode(ask(), clip(), (3, 5, 7, 9), times)
    text = model.tokenizer.decode(prepared.input_ids)
    assert [each for each in said if each not in text] == []


def test_times_count_from_the_clips_beginning():
    sampled = SampledFrames(
        pixels=clip(),
        indices=(52, 62, 72, 82),
        timestamps=(5.2, 6.2, 7.2, 8.2),
        fps=10.0,
        n_source=200,
        stream=0,
    )
    told = clip_times(sampled, Clip("x", start=5.0, end=9.0))
    assert told == {
        "fps": 10.0,
        "total_num_frames": 41,
        "duration": 4.1,
        "frames_indices": [2, 12, 22, 32],
    }
    whole = clip_times(sampled, Clip("x"))
    assert whole["frames_indices"] == [52, 62, 72, 82] and whole["total_num_frames"] == 200

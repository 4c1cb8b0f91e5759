"""What the model receives: prompts within its positions, and names for exactly the ids that reach
it. All four bundled families, on tiny checkpoints."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_hf import write_tiny_hf
from tiny_internvl import write_tiny_internvl
from tiny_llava import tiny_question, write_tiny_llava
from tiny_videollama3 import chat_question, write_tiny_videollama3
from tokenizers import processors

from mapflow.model_adapters.families.hf.model import HfVideo
from mapflow.model_adapters.families.internvl.model import InternVLVideo
from mapflow.model_adapters.families.llava.model import LlavaVideo
from mapflow.model_adapters.families.registry import checkpoint, family
from mapflow.model_adapters.families.videollama3.model import VideoLlama3
from mapflow.model_adapters.inference.run_loop import answer_questions
from mapflow.model_adapters.interventions import parse_interventions
from mapflow.model_adapters.video_llm import longest_sequence
from mapflow.results.contract.errors import MapflowError
from mapflow.tasks.registry import load_questions

sys.path.append(str(Path(__file__).parent))
from test_hf import ask

FRAMES = np.random.default_rng(0).integers(0, 255, (4, 32, 32, 3), dtype=np.uint8)
TINY = {
    "llava": (write_tiny_llava, LlavaVideo, tiny_question),
    "internvl": (write_tiny_internvl, InternVLVideo, tiny_question),
    "videollama3": (write_tiny_videollama3, VideoLlama3, chat_question),
    "hf": (lambda folder: write_tiny_hf(folder, "qwen2_5_vl", layers=2), HfVideo, ask),
}


@pytest.fixture(scope="module", params=TINY)
def tiny(request, tmp_path_factory):
    write, loads, question = TINY[request.param]
    folder = write(tmp_path_factory.mktemp("tiny") / request.param)
    return SimpleNamespace(model=loads.load(folder), question=question(), folder=folder)


def text_model(model) -> object:
    return model.decoder.core.config.get_text_config()


def test_a_prompt_may_fill_the_positions_and_not_exceed_them(tiny, monkeypatch):
    model, question = tiny.model, tiny.question
    n = len(model.encode(question, FRAMES).layout)
    monkeypatch.setattr(text_model(model), "max_position_embeddings", n)
    monkeypatch.setattr(text_model(model), "rope_parameters", {})
    model.encode(question, FRAMES)
    for asked, said in (
        (replace(question, stem=question.stem + " Where?"), r"has \d+ prompt tokens, but .* takes"),
        (replace(question, max_new_tokens=2), f"has {n} prompt tokens and up to 2 new ones, but"),
    ):
        with pytest.raises(MapflowError, match=f"question 'tiny-1' {said}") as excinfo:
            model.encode(asked, FRAMES)
        assert f"{n} positions (max_position_embeddings)" in str(excinfo.value)


def test_a_long_text_is_refused_before_its_video_is_read(tiny):
    asked = replace(
        tiny.question, stem="the red ball " * 15_400
    )  # 200,200 characters, no such clip
    begun = time.monotonic()
    with pytest.raises(MapflowError, match=r"has [\d,]{6,} tokens of text alone, but .* takes"):
        tiny.model.prepare(asked)
    assert time.monotonic() - begun < 5


def test_long_prompts_are_error_records_and_the_run_goes_on(monkeypatch):
    model = family("mapflow_llava").load(checkpoint("mapflow_llava", None))
    first, second = load_questions("mapflow_motion", limit=1)[:2]
    n = max(len(model.prepare(each).layout) for each in (first, second))
    monkeypatch.setattr(text_model(model), "max_position_embeddings", n)
    asked = [replace(first, stem=first.stem + " again" * n), replace(first, stem="A " * 9), second]
    asked[1] = replace(asked[1], question_id="b", stem=first.stem + " again" * 9)
    found = [r for _, r in answer_questions(model, asked, parse_interventions(["full"]))]
    assert [bool(records[0].error) for records in found] == [True, True, False]
    assert "tokens of text alone" in found[0][0].error and f" {n} positions" in found[0][0].error
    assert "prompt tokens" in found[1][0].error and f" {n} positions" in found[1][0].error


@pytest.mark.parametrize(
    ("rope", "expected"),
    [
        ({"rope_type": "default"}, 100),
        ({"rope_type": "linear", "factor": 2.0}, 200),
        ({"rope_type": "dynamic", "factor": 4.0}, 400),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 50}, 200),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 25}, 100),
        ({"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 50}, 100),
        ({"rope_type": "longrope", "original_max_position_embeddings": 10}, 100),
        ({"full_attention": {"rope_type": "linear", "factor": 8.0}, "sliding_attention": {}}, 800),
        (None, 100),
    ],
)
def test_the_declared_length_with_rotary_scaling(rope, expected):
    inner = SimpleNamespace(max_position_embeddings=100, rope_parameters=rope)
    outer = SimpleNamespace(get_text_config=lambda decoder: inner)
    assert longest_sequence(outer) == expected
    for none in (None, 0, -1):
        inner.max_position_embeddings = none
        assert longest_sequence(outer) is None
    del inner.max_position_embeddings
    assert longest_sequence(outer) is None


def special(tokenizer) -> tuple[str, int]:
    return tokenizer.eos_token, tokenizer.eos_token_id


def test_start_tokens_are_system_and_end_tokens_are_refused(tiny):
    """A tokenizer that frames every text, as its tokenizer.json may say."""
    model = tiny.model
    library, (token, number) = model.tokenizer.backend_tokenizer, special(model.tokenizer)
    plain, before = model.encode(tiny.question, FRAMES), library.post_processor
    named = [str(plain.layout.segments[i]) for i in plain.layout.segment_of.tolist()]
    try:
        frame = processors.TemplateProcessing(
            single=f"{token} $A", special_tokens=[(token, number)]
        )
        library.post_processor = frame
        begun = model.encode(tiny.question, FRAMES)
        told = [str(begun.layout.segments[i]) for i in begun.layout.segment_of.tolist()]
        start = len(told) - len(named) + (plain.input_ids[0] == model.tokenizer.bos_token_id)
        assert begun.input_ids[0] == number and told[0] == "system"
        assert told[start:] == named[int(plain.input_ids[0] == model.tokenizer.bos_token_id) :]
        frame = processors.TemplateProcessing(
            single=f"$A {token}", special_tokens=[(token, number)]
        )
        library.post_processor = frame
        with pytest.raises(MapflowError, match="no token can be named") as excinfo:
            model.encode(tiny.question, FRAMES)
        assert "\n" not in str(excinfo.value)
    finally:
        library.post_processor = before


def test_a_truncating_tokenizer_does_not_truncate(tiny):
    """`truncation` of tokenizer.json acts only if the caller asks for it."""
    file = tiny.folder / "tokenizer.json"
    content = json.loads(file.read_text())
    strategy = {"direction": "Left", "max_length": 8, "strategy": "LongestFirst", "stride": 0}
    file.write_text(json.dumps({**content, "truncation": strategy}))
    try:
        again = type(tiny.model).load(tiny.folder)
        n = len(tiny.model.encode(tiny.question, FRAMES).layout)
        assert len(again.encode(tiny.question, FRAMES).layout) == n
    finally:
        file.write_text(json.dumps(content))


def dropping(tokenizer):
    """The tokenizer with a normalizer that deletes a letter of the question."""
    from tokenizers import normalizers

    before = tokenizer.backend_tokenizer.normalizer
    step = normalizers.Replace("W", "")
    tokenizer.backend_tokenizer.normalizer = (
        normalizers.Sequence([step, before]) if before else step
    )
    return before


def test_a_tokenizer_that_drops_text_is_refused(tiny):
    tokenizer = tiny.model.tokenizer
    before = dropping(tokenizer)
    try:
        with pytest.raises(MapflowError, match="the tokenizer drops 'W' from"):
            tiny.model.encode(tiny.question, FRAMES)
    finally:
        tokenizer.backend_tokenizer.normalizer = before


def prepends(processor, batch):
    start = torch.full((1, 1), processor.tokenizer.eos_token_id)
    batch["input_ids"] = torch.cat([start, batch["input_ids"]], 1)
    batch["attention_mask"] = torch.ones_like(batch["input_ids"])


def prepends_a_word(processor, batch):
    batch["input_ids"] = torch.cat([batch["input_ids"][:, 5:6], batch["input_ids"]], 1)


def appends(processor, batch):
    end = torch.full((1, 1), processor.tokenizer.eos_token_id)
    batch["input_ids"] = torch.cat([batch["input_ids"], end], 1)


def changes(processor, batch):
    batch["input_ids"] = batch["input_ids"].clone()
    batch["input_ids"][0, -8] += 1


def truncates(processor, batch):
    batch["input_ids"] = batch["input_ids"][:, :-2]


def rotates(processor, batch):
    batch["input_ids"] = batch["input_ids"].roll(1, 1)


def inserts(processor, batch):
    ids = batch["input_ids"]
    batch["input_ids"] = torch.cat([ids[:, :-9], ids[:, -9:-8], ids[:, -9:]], 1)


def processing(monkeypatch, model, text=None, ids=None) -> None:
    """The model's processor with other text before, or other ids after its work."""
    kind = type(model.processor)
    original = kind.__call__

    def call(self, text_change=text, **inputs):
        if text_change is not None:
            inputs["text"] = [text_change(each) for each in inputs["text"]]
        batch = original(self, **inputs)
        if ids is not None:
            ids(self, batch)
        return batch

    monkeypatch.setattr(kind, "__call__", call)


@pytest.fixture(scope="module")
def transformers_model(tmp_path_factory):
    return HfVideo.load(write_tiny_hf(tmp_path_factory.mktemp("hf") / "qwen", "qwen2_5_vl", 2))


def names(prepared) -> list[str]:
    return [str(prepared.layout.segments[i]) for i in prepared.layout.segment_of.tolist()]


@pytest.mark.parametrize(
    "ids",
    [prepends_a_word, appends, changes, truncates, rotates, inserts],
    ids=lambda f: f.__name__,
)
def test_processors_that_give_other_ids_are_refused(transformers_model, monkeypatch, ids):
    processing(monkeypatch, transformers_model, ids=ids)
    with pytest.raises(MapflowError, match="no token can be named") as excinfo:
        transformers_model.encode(ask(), FRAMES)
    assert "\n" not in str(excinfo.value)


def test_a_start_token_shifts_no_name(transformers_model, monkeypatch):
    """Prepended as an id, and as text."""
    plain = names(transformers_model.encode(ask(), FRAMES))
    with monkeypatch.context() as patch:
        processing(patch, transformers_model, ids=prepends)
        assert names(transformers_model.encode(ask(), FRAMES)) == ["system", *plain]
    end = transformers_model.tokenizer.eos_token
    processing(monkeypatch, transformers_model, text=lambda text: end + text)
    assert names(transformers_model.encode(ask(), FRAMES)) == ["system", *plain]


@pytest.mark.parametrize(
    "text",
    [
        str.lower,
        str.strip,
        lambda text: text + "<|im_end|>",
        lambda text: text.replace("ball", "red ball"),
        lambda text: text[:-20],
        lambda text: "Hello. " + text,
        lambda text: text.replace("?", "? [00:01]"),
    ],
    ids=["lower", "strip", "end", "insert", "truncate", "begin", "time stamp"],
)
def test_processors_that_change_the_text_are_refused(transformers_model, monkeypatch, text):
    processing(monkeypatch, transformers_model, text=text)
    with pytest.raises(MapflowError, match="no token can be named") as excinfo:
        transformers_model.encode(ask(), FRAMES)
    assert "\n" not in str(excinfo.value)


def test_a_processor_with_a_tokenizer_of_its_own_is_refused(transformers_model, monkeypatch):
    tokenizer = transformers_model.tokenizer
    kind = type(transformers_model.processor)
    original = kind.__call__

    def call(self, **inputs):
        self.tokenizer = tokenizer
        return original(self, **inputs)

    monkeypatch.setattr(kind, "__call__", call)
    with pytest.raises(MapflowError, match="makes ids without its tokenizer"):
        transformers_model.encode(ask(), FRAMES)


@pytest.mark.parametrize("change", ["longer", "rolled", "scaled"])
def test_a_decoder_that_receives_another_prompt_is_refused(transformers_model, change):
    prepared = transformers_model.encode(ask(), FRAMES)

    def other(module, args, kwargs):
        embeds = kwargs["inputs_embeds"]
        positions = kwargs["position_ids"]
        if change == "longer":
            embeds = torch.cat([embeds[:, :1], embeds], 1)
            positions = torch.cat([positions[..., :1], positions], -1)
        embeds = {"longer": embeds, "rolled": embeds.roll(1, 1), "scaled": embeds * 2}[change]
        mask = torch.ones(embeds.shape[:2])
        return args, {
            **kwargs,
            "inputs_embeds": embeds,
            "position_ids": positions,
            "attention_mask": mask,
        }

    core = transformers_model.decoder.core
    handle = core.register_forward_pre_hook(other, with_kwargs=True, prepend=True)
    try:
        with pytest.raises(MapflowError, match="no position can be named"):
            transformers_model.embed([prepared])
    finally:
        handle.remove()

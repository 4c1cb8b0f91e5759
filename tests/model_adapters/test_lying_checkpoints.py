"""Checkpoints whose files contradict each other: one line before the run, in every family."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_number_formats import TINY
from tiny_llava import tiny_config, tiny_weights, write_tiny_llava
from tokenizers import AddedToken, Tokenizer

from mapflow.model_adapters.families.registry import load_model
from mapflow.results.contract.errors import MapflowError


@pytest.fixture(params=TINY)
def family(request, tmp_path):
    """The family's name and a folder of it."""
    write, _ = TINY[request.param]
    return f"mapflow_{request.param}", write(tmp_path / "tiny")


def refused(name, folder, *words, **options):
    with pytest.raises(MapflowError) as error, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        load_model(name, folder, device="cpu", **options)
    assert "\n" not in str(error.value)
    assert [word for word in words if word not in str(error.value)] == [], str(error.value)


def edit(file, change):
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


@pytest.mark.parametrize("special", [False, True], ids=["added", "special"])
def test_a_token_without_an_embedding_is_named(family, special):
    name, folder = family
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    add = tokenizer.add_special_tokens if special else tokenizer.add_tokens
    add([AddedToken(f"<|new-{number}|>") for number in range(200)])
    tokenizer.save(str(folder / "tokenizer.json"))
    refused(name, folder, "token '<|new-", "embeddings of", "own tokenizer.json")


def test_weights_that_are_not_finite_are_named(family):
    name, folder = family
    file = folder / "model.safetensors"
    weights = load_file(file)
    key = next(key for key in sorted(weights) if key.endswith("norm.weight"))
    weights[key][0] = float("nan")
    save_file(weights, file, metadata={"format": "pt"})
    refused(name, folder, "norm.weight holds NaN or infinity in float32")


@pytest.mark.parametrize("value", ["bananas", "int8", "float8_e4m3fn", 16, ["float16"]])
def test_a_number_format_that_no_weights_have_is_refused(family, value):
    name, folder = family
    edit(folder / "config.json", lambda config: config.update(torch_dtype=value))
    refused(name, folder, f"torch_dtype={value!r}", "float32, bfloat16")


def test_numbers_beyond_the_precision_asked_for_are_refused(tmp_path):
    config = tiny_config()
    weights = tiny_weights(config)
    key = next(key for key in sorted(weights) if key.endswith("lm_head.weight"))
    weights[key][0, 0] = 1e6
    folder = write_tiny_llava(tmp_path / "tiny", config, weights)
    refused("mapflow_llava", folder, "lm_head.weight holds", "in float16", dtype="float16")


@pytest.mark.parametrize("held", [torch.float16, torch.bfloat16])
def test_a_header_that_calls_one_half_precision_the_other_is_refused(family, held):
    """The sizes agree, so only the numbers show it."""
    name, folder = family
    file = folder / "model.safetensors"
    weights = {key: one.to(held) for key, one in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})
    load_model(name, folder, device="cpu")  # as it says
    other = torch.bfloat16 if held is torch.float16 else torch.float16
    stated = {key: one.view(other) for key, one in weights.items()}
    save_file(stated, file, metadata={"format": "pt"})
    refused(name, folder, "states another number format than it holds")


def test_tied_embeddings_that_differ_are_refused(tmp_path):
    config = tiny_config()  # not tied: two tensors
    folder = write_tiny_llava(tmp_path / "tiny", config)
    edit(folder / "config.json", lambda one: one["text_config"].update(tie_word_embeddings=True))
    refused("mapflow_llava", folder, "ties", "lm_head.weight", "their tensors differ")


def test_transformers_own_models_keep_both_tensors_where_they_differ(tmp_path):
    write, _ = TINY["hf"]
    folder = write(tmp_path / "tiny")
    edit(folder / "config.json", lambda one: one.update(tie_word_embeddings=True))
    head = next(
        one for key, one in load_file(folder / "model.safetensors").items() if "lm_head" in key
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = load_model("mapflow_hf", folder, device="cpu").model
    assert torch.equal(model.get_output_embeddings().weight, head)

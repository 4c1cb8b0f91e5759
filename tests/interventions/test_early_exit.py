"""`early-exit@L`: the model that ends after layer L, alone and combined with cuts."""

from __future__ import annotations

from copy import copy, deepcopy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import compile_spec, few, prompts, specs
from test_attention import TOLERANCE, families, naive_masks
from test_decoder import LAYOUT, hooks_of
from tiny_models import FAMILIES, embeddings, tiny, twin_logits

from mapflow.harness.cli.main import main
from mapflow.model_adapters.interventions import (
    Compiled,
    Decoder,
    DecoderInputs,
    parse_intervention,
)
from mapflow.model_adapters.interventions.execution.incremental import answer_logits
from mapflow.model_adapters.interventions.language.liveness import live_row_layers
from mapflow.model_adapters.interventions.language.reachability import certificate
from mapflow.results.contract.errors import MapflowError


def compiled(text: str, n_layers: int) -> Compiled:
    return parse_intervention(text).compile(LAYOUT, n_layers)


@given(families, st.lists(prompts(max_frames=2), min_size=1, max_size=2), st.data())
@few
def test_answers_are_those_of_a_model_that_ends_there(family, drawn, data):
    """Prompts with cuts of every kind, each answered at another depth, in one call."""
    n_layers = data.draw(st.integers(1, 4))
    grid, expected, model = [], [], tiny(family, n_layers)
    for number, prompt in enumerate(drawn):
        own = []
        for spec in data.draw(
            st.lists(specs(prompt, n_layers, random=True), min_size=0, max_size=3)
        ):
            depth = data.draw(st.integers(1, n_layers))
            plain = compile_spec(prompt, spec, n_layers, key=f"q{number}")
            cut = plain.allowed.copy()
            cut[depth:] = False
            own.append(Compiled(plain.layout, cut, plain.key, plain.random, plain.budget, depth))
            shorter = copy(model)
            shorter._modules = {**model._modules, "model": copy(model.model)}
            shorter.model._modules = {**model.model._modules, "layers": model.model.layers[:depth]}
            masks = naive_masks(prompt, spec, n_layers, plain)[:depth]
            expected.append(twin_logits(shorter, embeddings(len(prompt), seed=number), masks)[-1])
        grid.append((DecoderInputs(embeddings(len(prompt), seed=number)), own))
    if not expected:
        return
    decoder = Decoder(model)
    found = decoder.answer_logits([inputs for inputs, _ in grid], [own for _, own in grid])
    assert [len(rows) for rows in found] == [len(own) for _, own in grid]
    torch.testing.assert_close(torch.cat(found).double(), torch.stack(expected), **TOLERANCE)
    assert len(decoder.core.layers) == n_layers and not hooks_of(model)
    inputs, own = next((inputs, own) for inputs, own in grid if own)
    fast = answer_logits(decoder, inputs, own)
    torch.testing.assert_close(fast.double(), torch.stack(expected[: len(own)]), **TOLERANCE)


@pytest.mark.parametrize("family", FAMILIES)
def test_written_answers_come_from_that_layer_too(family):
    """Several depths in one call, against models that really are that short."""
    model, texts = (
        tiny(family, 3),
        ["early-exit@2+video->last", "full", "early-exit@1", "early-exit@2"],
    )
    inputs = DecoderInputs(embeddings(len(LAYOUT), seed=4))
    tokens, first = Decoder(model).generate(inputs, [compiled(text, 3) for text in texts], 4)
    assert len(model.model.layers) == 3
    for text, ids, logits in zip(texts, tokens, first, strict=True):
        depth = compiled(text, 3).depth
        short = deepcopy(model)
        short.model.layers = short.model.layers[:depth]
        short.config.num_hidden_layers = depth
        rest = (
            "+".join(term for term in text.split("+") if not term.startswith("early-exit"))
            or "full"
        )
        expected, their_first = Decoder(short).generate(inputs, [compiled(rest, depth)], 4)
        assert [ids] == expected
        torch.testing.assert_close(logits, their_first[0])


def test_the_model_is_whole_again_after_an_exception():
    decoder = Decoder(tiny("llama-gqa", 3))
    with pytest.raises(RuntimeError):
        decoder.answer_logits(
            [DecoderInputs(torch.zeros(len(LAYOUT), 7))], [[compiled("early-exit@1", 3)]]
        )
    assert len(decoder.core.layers) == 3


def test_what_does_not_run_is_not_counted():
    n, full, early = len(LAYOUT), compiled("full", 5), compiled("early-exit@2", 5)
    assert (full.row_layers, early.row_layers) == (5 * n, 2 * n)
    assert (early.edges_total, early.edges_kept) == (full.edges_total, full.edges_kept * 2 // 5)
    assert early.n_empty_rows == 0
    assert live_row_layers(early) == live_row_layers(compiled("full", 2))
    assert live_row_layers(compiled("early-exit@2+video->last", 5)) == live_row_layers(
        compiled("video->last", 2)
    )


def test_no_path_leads_through_layers_that_do_not_run():
    assert certificate(compiled("early-exit@3", 5))
    assert not certificate(compiled("early-exit@3+video->all@1-3", 5))
    assert certificate(compiled("video->all@1-3", 5))


@pytest.mark.parametrize(
    "text",
    [
        "early-exit@20",
        "effective+early-exit@20",
        "early-exit@3+video->last@1-2",
        "random+early-exit@2",
    ],
)
def test_the_one_line_form_parses_back(text):
    parsed = parse_intervention(text)
    assert parse_intervention(str(parsed)) == parsed
    assert parsed.early_exit == int(text.partition("early-exit@")[2].partition("+")[0])


def test_leaving_after_the_last_layer_changes_nothing():
    last, full = compiled("early-exit@4", 4), compiled("full", 4)
    assert (last.depth, last.row_layers, last.edges_kept) == (4, full.row_layers, full.edges_kept)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("early-exit", "not of the form early-exit@LAYER"),
        ("early-exit@0", "not of the form early-exit@LAYER"),
        ("early-exit@2-3", "not of the form early-exit@LAYER"),
        ("early-exit:2", "not of the form early-exit@LAYER"),
        ("early-exit@6", "layer 6 is outside 1..5"),
        ("early-exit@2+early-exit@3", "one early exit at most"),
        ("keep:early-exit@2", "'keep' takes routes"),
    ],
)
def test_mistakes(text, said):
    with pytest.raises(MapflowError, match=said):
        compiled(text, 5)


def test_explain_counts_saved_row_layers(capsys):
    assert main(["explain", "early-exit@20,full", "--layers", "32"]) == 0
    out = capsys.readouterr().out
    assert out.count("row-layers") == 1
    assert "(62.5%): layers after 20 do not run" in out


def test_explain_counts_rows_that_no_answer_depends_on(capsys):
    assert main(["explain", "effective-strict,effective", "--layers", "32"]) == 0
    strict, leaky = [line for line in capsys.readouterr().out.splitlines() if "row-layers" in line]
    # video in 19 layers; in 20-30 the other 125 rows; in 31 those that `last` still reads;
    # in 32 `last` alone
    assert (
        f"{19 * 1277 + 11 * 125 + 65 + 1:,} of" in strict
        and "no answer depends on the others" in strict
    )
    assert (
        f"{30 * 1277 + 65 + 1:,} of" in leaky
    )  # the template reads video as long as `last` reads the template

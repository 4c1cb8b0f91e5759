"""Text architectures that mapflow has never named equal own hooks on eager attention.

Others are refused before their weights load.

The reference is the whole model's own forward from pixels to logits with its own eager attention
function, to whose additive mask minus infinity is added where an edge is cut. It shares no code
with the instrument, and its masks tell which edges a model has."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_hf import ask, clip
from text_models import LENGTHS, REFUSED, RUN, by_length, write_text_model

from mapflow.harness.cli.main import main
from mapflow.harness.verification import ModelUnderTest, verify
from mapflow.harness.verification.locality import check_isolation
from mapflow.harness.verification.probe import probe_questions
from mapflow.model_adapters.families.hf.model import HfVideo
from mapflow.model_adapters.families.registry import load_model
from mapflow.model_adapters.inference import run_loop, start_checks
from mapflow.model_adapters.inference.answering import answer
from mapflow.model_adapters.interventions import parse_intervention
from mapflow.model_adapters.interventions.execution import incremental
from mapflow.model_adapters.interventions.execution.layer_arguments import NotIncremental
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.files import read_json
from mapflow.results.runs.folder import RunFolder

ROUTES = ("full", "video->question@1-2", "stem->last+frame[0]->frame[1]@2-4")


def own_hooks(model: HfVideo, prepared, cut, monkeypatch) -> tuple[torch.Tensor, int]:
    """Logits of the model's own eager forward without the edges `cut(layer, query, key)`; and the
    number of edges left."""
    core, left = model.decoder.core, {}
    with monkeypatch.context() as patches:
        for name in {type(module).__module__ for module in core.modules()}:
            original = getattr(sys.modules[name], "eager_attention_forward", None)
            if original is None:
                continue

            def eager(module, query, key, value, mask, *args, original=original, **options):
                if module in own:
                    mask = mask.expand(1, 1, -1, -1) + cut[module.layer_idx]
                    left[module.layer_idx] = int((mask[0, 0] > -1e30).sum())
                return original(module, query, key, value, mask, *args, **options)

            patches.setattr(sys.modules[name], "eager_attention_forward", eager)
        own = {module for module in core.modules() if hasattr(module, "layer_idx")}
        usual = core.config._attn_implementation
        core.set_attn_implementation("eager")
        logits = model.plain_logits(prepared)
        core.set_attn_implementation(usual)
    return logits, sum(left.values())


def minus_infinity(compiled) -> list[torch.Tensor]:
    """The edges that an intervention cuts, written out position by position."""
    of, n = compiled.layout.segment_of, len(compiled.layout)
    masks = []
    for allowed in compiled.allowed:
        mask = torch.zeros(n, n)
        for query in range(n):
            for key in range(query):
                if not allowed[of[query], of[key]]:
                    mask[query, key] = -torch.inf
        masks.append(mask)
    return masks


@pytest.mark.parametrize("architecture", RUN)
def test_text_models_equal_own_hooks_on_eager_attention(architecture, tmp_path, monkeypatch):
    model = HfVideo.load(write_text_model(tmp_path, architecture))
    prepared = model.encode(ask(), clip())
    (inputs,) = model.embed([prepared])
    compiled = model.compile_all([*map(parse_intervention, ROUTES)], prepared, inputs)
    slow = [own_hooks(model, prepared, minus_infinity(one), monkeypatch) for one in compiled]
    fast = {"batch": model.decoder.answer_logits([inputs], [compiled])[0]}
    fast["generation"] = model.decoder.generate(inputs, compiled, 1)[1]
    try:
        fast["incremental"] = incremental.answer_logits(model.decoder, inputs, compiled)
    except NotIncremental:
        assert architecture in ("DiffLlamaConfig", "Llama4TextConfig")
    for way, rows in fast.items():
        for text, row, (expected, _) in zip(ROUTES, rows, slow, strict=True):
            assert (row - expected).abs().max() <= 1e-4, (way, text)
    assert (slow[1][0] - slow[0][0]).abs().max() > 1e-3, "a cut that does nothing proves nothing"
    counts = [one.edges_kept for one in compiled]
    assert counts == [edges for _, edges in slow]
    assert {one.edges_total for one in compiled} == {counts[0]}


@pytest.mark.parametrize("architecture", REFUSED)
def test_models_that_cuts_do_not_reach_are_refused_before_weights_load(
    architecture, tmp_path, monkeypatch
):
    folder = write_text_model(tmp_path, architecture)
    monkeypatch.setattr(
        "mapflow.model_adapters.families.hf.loading.AutoModelForImageTextToText.from_pretrained",
        lambda *_, **__: pytest.fail("weights were read"),
    )
    with pytest.raises(MapflowError, match=REFUSED[architecture][1]) as refused:
        HfVideo.load(folder)
    assert "\n" not in str(refused.value)


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory) -> Path:
    return write_text_model(tmp_path_factory.mktemp("hybrid"), "Qwen3NextConfig")


def test_with_consent_only_layers_with_attention_have_edges(hybrid):
    model = load_model("mapflow_hf", hybrid, device="cpu", allow_uncut_layers=True)
    assert model.name.endswith("+1,3-uncut-layers")
    prepared = model.encode(ask(), clip())
    texts = ("full", "video->question@1", "video->question@2")
    ((full, nothing, cut),) = answer(model, [prepared], [*map(parse_intervention, texts)])
    n = len(prepared.layout)
    assert full.edges_total == full.edges_kept == n * (n + 1) // 2 * 2
    assert nothing.edges_kept == full.edges_kept > cut.edges_kept
    assert nothing.p_target == pytest.approx(full.p_target, rel=1e-4)
    assert cut.p_target != pytest.approx(full.p_target, rel=1e-3)
    found = start_checks.start_checks(model, prepared, model.embed([prepared])[0])
    assert found["checks"]["isolation"]["isolated"] is False


def test_the_flag_gives_consent_and_every_table_says_so(hybrid, tmp_path, capsys):
    command = ["trace", "--samples", "all", "--model", "mapflow_hf", "--limit", "1"]
    command += ["--pretrained", str(hybrid), "--task", "mapflow_motion_direction"]
    command += ["--device", "cpu"]
    assert main([*command, "--output_path", str(tmp_path / "no")]) == 2
    assert "mix positions without attention" in capsys.readouterr().err
    out = str(tmp_path / "yes")
    assert main([*command, "--output_path", out, "--allow-uncut-layers"]) == 0
    assert "layers 1,3 mix positions without attention" in capsys.readouterr().out
    manifest = read_json(Path(out) / "manifest.json")
    assert manifest["uncut_layers"].startswith("layers 1,3 mix")
    assert manifest["checks"]["own_forward"]["relative"] <= 1e-4


@pytest.mark.parametrize("architecture", ["Starcoder2Config", "MiMoV2FlashConfig"])
def test_verify_passes_windows_and_experts(architecture, tmp_path):
    model = HfVideo.load(write_text_model(tmp_path, architecture))
    findings = [*verify(model)]
    assert [str(one) for one in findings if not one.passed] == []
    assert {one.check for one in findings} >= {"isolation", "layers reached", "causality"}


@pytest.mark.parametrize("architecture", ["Qwen3MoeConfig", "OlmoeConfig", "Glm4MoeConfig"])
def test_rounding_between_experts_is_no_path_round_the_cuts(architecture, tmp_path):
    """Other tokens beside one expert's change the bits of both; a few tokens may not show it."""
    model = HfVideo.load(write_text_model(tmp_path, architecture))
    prepared = model.encode(ask(), clip())
    checks = start_checks.start_checks(model, prepared, model.embed([prepared])[0])["checks"]
    assert checks["isolation"]["isolated"] and not checks["isolation"]["bit_equal"]
    assert checks["isolation"]["max_difference"] < 1e-5


def test_verify_fails_what_gets_round_the_cuts(tmp_path):
    folder = write_text_model(tmp_path, "FalconH1Config")
    model = load_model("mapflow_hf", folder, device="cpu", allow_uncut_layers=True)
    subject = ModelUnderTest.of(model, probe_questions(tmp_path))
    assert [one.passed for one in check_isolation(subject)] == [False, False]


@pytest.fixture
def plain(tmp_path):
    model = HfVideo.load(write_text_model(tmp_path, "Olmo2Config"))
    model.prepare = lambda question: model.encode(question, clip())
    return model


def run(model: HfVideo, folder: Path) -> None:
    interventions = [parse_intervention("full")]
    work = run_loop.Answering(model, lambda question: interventions)
    list(run_loop.run_questions(work, [ask()], RunFolder(folder, {}, {})))


def test_a_run_records_what_its_first_question_shows(plain, tmp_path):
    run(plain, tmp_path / "run")
    checks = read_json(tmp_path / "run" / "manifest.json")["checks"]
    assert checks["isolation"] == {"isolated": True, "bit_equal": True, "max_difference": 0.0}
    assert checks["own_forward"]["max_difference"] <= 1e-4 and checks["question"] == "tiny-1"


def test_logits_that_are_not_the_models_own_are_refused(plain, tmp_path, monkeypatch):
    usual = type(plain.decoder).logits
    monkeypatch.setattr(
        type(plain.decoder), "logits", lambda self, hidden: usual(self, hidden) * 0.999
    )
    with pytest.raises(MapflowError, match=r"differ from the model's own forward by 1\.0e-03"):
        run(plain, tmp_path / "run")
    assert (tmp_path / "run" / "records.jsonl").read_text() == ""


def test_a_video_that_gets_round_its_cuts_is_refused(plain, tmp_path):
    """A path outside the layers, which no inspection of layers can see."""
    plain.decoder.core.norm.register_forward_pre_hook(
        lambda module, args: (args[0] + 1e-4 * args[0].cumsum(1),)
    )
    with pytest.raises(MapflowError, match="other pixels still change the logits"):
        run(plain, tmp_path / "run")


def test_a_model_that_does_not_see_the_video_is_refused(plain, tmp_path):
    """Its own forward does not see it either, so nothing else would show it."""
    for name, parameter in plain.model.named_parameters():
        if "multi_modal_projector" in name:
            parameter.data.zero_()
    with pytest.raises(MapflowError, match="other pixels change nothing"):
        run(plain, tmp_path / "run")
    assert (tmp_path / "run" / "records.jsonl").read_text() == ""


def test_pixels_in_a_list_are_refused_and_not_dropped(plain, monkeypatch):
    usual = type(plain.processor).__call__

    def listed(self, *args, **kwargs):
        batch = usual(self, *args, **kwargs)
        batch["pixel_values"] = [*batch["pixel_values"]]
        return batch

    monkeypatch.setattr(type(plain.processor), "__call__", listed)
    with pytest.raises(MapflowError, match="returns pixel_values in several tensors"):
        plain.encode(ask(), clip())


@pytest.mark.parametrize("architecture", ["Gemma3nTextConfig", "GptOssConfig"])
def test_written_tokens_are_the_models_own(architecture, tmp_path, monkeypatch):
    """Gemma 3n does more with ids than with embeddings, which are what its wrapper hands on."""
    shared = {"head_dim": 8, "num_kv_shared_layers": 2, "sliding_window": 16, "laurel_rank": 4}
    more = {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 420}
    layers = {"layer_types": ["sliding_attention", "full_attention"] * 2, "altup_num_inputs": 2}
    monkeypatch.setitem(
        RUN, "Gemma3nTextConfig",
        {**shared, **more, **layers, "activation_sparsity_pattern": [0.0] * 4},
    )  # fmt: skip
    model = HfVideo.load(write_text_model(tmp_path, architecture))
    prepared = model.encode(ask(), clip())
    (inputs,) = model.embed([prepared])
    compiled = model.compile_all([parse_intervention("full")], prepared, inputs)
    (written,), _ = model.decoder.generate(inputs, compiled, 6)
    ids = prepared.input_ids
    for token in written:
        mask = torch.ones(1, len(ids), dtype=torch.long)
        longer = replace(prepared, input_ids=ids, vision=prepared.vision | {"attention_mask": mask})
        assert token == int(model.plain_logits(longer).argmax())
        ids = torch.cat([ids, torch.tensor([token])])


@pytest.mark.parametrize("kind", LENGTHS)
def test_other_prompts_do_not_change_rotary_tables(kind, tmp_path, monkeypatch):
    """Neither those of the same batch nor those before it."""
    monkeypatch.setitem(RUN, "LlamaConfig", by_length(kind))
    model = HfVideo.load(write_text_model(tmp_path, "LlamaConfig"))
    stems = ("Which way does the ball roll?", "Which way does the ball roll now, " * 3)
    prepared = [model.encode(ask(stem), clip()) for stem in (*stems, stems[1] + "and now?")]
    assert len(prepared[0].layout) < 110 < len(prepared[1].layout)
    own = []
    for one in prepared:
        fresh = HfVideo.load(tmp_path)
        own.append(fresh.plain_logits(one))
    inputs = model.embed(prepared)
    compiled = [
        model.compile_all([parse_intervention("full")], *each)
        for each in zip(prepared, inputs, strict=True)
    ]
    together = model.decoder.answer_logits(inputs, compiled)
    for number in (2, 1, 0):
        assert (together[number][0] - own[number]).abs().max() <= 1e-4
        (after,) = model.decoder.answer_logits([inputs[number]], [compiled[number]])
        assert (after[0] - own[number]).abs().max() <= 1e-4

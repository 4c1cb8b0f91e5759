"""`mapflow verify` passes every correct adapter and fails every sabotaged one in the right check.

The same checks that a user runs on a checkpoint run here over all adapters on tiny random
checkpoints. Then each check is shown a model that was sabotaged in the way that it is there to
find.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mapflow.harness.cli.main import main
from mapflow.harness.verification import CHECKS, ModelUnderTest, run, verify
from mapflow.harness.verification.probe import probe_questions
from mapflow.model_adapters.families.hf.model import HfVideo
from mapflow.model_adapters.families.llava.model import LlavaVideo
from mapflow.model_adapters.families.registry import families
from mapflow.model_adapters.interventions import TokenLayout
from mapflow.model_adapters.interventions.execution import decoder
from mapflow.model_adapters.interventions.execution.batch_masks import BatchMasks
from mapflow.model_adapters.interventions.inspection.noise import distance
from mapflow.model_adapters.interventions.kernels import attention, grouped_attention, query_groups

sys.path.append(str(Path(__file__).parents[1] / "model_adapters"))
from tiny_hf import FAMILIES as HF_FAMILIES
from tiny_hf import write_tiny_hf
from tiny_llava import tiny_config, write_tiny_llava


def failed(model, **options) -> set[str]:
    return {finding.check for finding in verify(model, **options) if not finding.passed}


@pytest.fixture(scope="module")
def llava(tmp_path_factory) -> LlavaVideo:
    return LlavaVideo.load(write_tiny_llava(tmp_path_factory.mktemp("llava")))


@pytest.mark.parametrize("name", HF_FAMILIES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_transformers_family_is_verified(tmp_path, name, dtype):
    model = HfVideo.load(write_tiny_hf(tmp_path, name), dtype=dtype)
    findings = [*verify(model)]
    assert [str(f) for f in findings if not f.passed] == []
    assert len(findings) > 20


def test_the_llava_adapter_is_verified(llava):
    assert failed(llava) == set()


def test_a_prompt_long_enough_for_groups_is_verified(llava, monkeypatch):
    """Groups have kernels of their own, so other positions would not keep their bits."""
    for module, name in (
        (query_groups, "FEW_QUERIES"),
        (grouped_attention, "MANY_POSITIONS"),
    ):
        monkeypatch.setattr(module, name, 1)
    assert failed(llava) == set()


def test_every_golden_checkpoint_is_verified_by_its_own_adapter(golden_root):
    """Whatever checkpoint folders of a registered family there are."""
    tried = Counter()
    for config in sorted(golden_root.glob("*/*/config.json")):
        architecture = (json.loads(config.read_text()).get("architectures") or [""])[0]
        for name, family in families().items():
            if family.model_class().reads(architecture):
                model = family.model_class().load(config.parent)
                assert failed(model) == set(), config.parent.name
                tried[name] += 1
    assert tried


def test_the_command_prints_a_list_and_says_by_its_exit_code(tmp_path, capsys, monkeypatch):
    folder = str(write_tiny_llava(tmp_path))
    assert main(["verify", "mapflow_llava", "--pretrained", folder, "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "FAIL" not in out and "noise bounds" in out
    lines = [line for line in out.splitlines() if line.startswith("pass  ")]
    assert out.splitlines()[-1] == f"{len(lines)} of {len(lines)} passed"
    assert {line[6:24].strip() for line in lines} >= set(CHECKS) - {"layers"}

    monkeypatch.setattr(
        LlavaVideo, "plain_logits", lambda self, prepared: torch.ones(len(self.tokenizer))
    )
    assert main(["verify", "mapflow_llava", "--pretrained", folder, "--device", "cpu"]) == 1
    assert "FAIL  own forward" in capsys.readouterr().out

    assert main(["verify", "mapflow_hf"]) == 2
    assert "has no bundled checkpoint" in capsys.readouterr().err
    assert main(["verify", "mapflow_llava", "--pretrained", str(tmp_path / "absent")]) == 2


def relabelled(model: LlavaVideo, change, tmp_path: Path) -> set[str]:
    """What fails where the adapter's layouts are `change(layout)`."""
    prepare = model.prepare

    def prepare_wrongly(question):
        prepared = prepare(question)
        return replace(prepared, layout=change(prepared.layout))

    model.prepare = prepare_wrongly  # type: ignore[method-assign]
    try:
        return failed(model, questions=probe_questions(tmp_path))
    finally:
        del model.prepare


def shifted(layout: TokenLayout) -> TokenLayout:
    """Everything one position late, but for the last."""
    moved = layout.segment_of.copy()
    moved[1:-1] = layout.segment_of[:-2]
    return TokenLayout(layout.segments, moved, layout.true_option)


def swapped_frames(layout: TokenLayout) -> TokenLayout:
    segments = list(layout.segments)
    a, b = (segments.index(s) for s in segments if str(s) in ("frame[0]", "frame[1]"))
    segments[a], segments[b] = segments[b], segments[a]
    return TokenLayout(tuple(segments), layout.segment_of, layout.true_option)


def one_frame_for_all(layout: TokenLayout) -> TokenLayout:
    of = layout.segment_of.copy()
    first = next(i for i, s in enumerate(layout.segments) if s.kind == "frame")
    of[layout.positions("video")] = first
    kept = [i for i, s in enumerate(layout.segments) if s.kind != "frame" or i == first]
    new = {old: index for index, old in enumerate(kept)}
    return TokenLayout(
        tuple(layout.segments[i] for i in kept),
        np.array([new[int(i)] for i in of]),
        layout.true_option,
    )


def forgotten_token(layout: TokenLayout) -> TokenLayout:
    return TokenLayout(layout.segments, layout.segment_of[1:], layout.true_option)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (shifted, "video positions"),
        (swapped_frames, "layout"),
        (one_frame_for_all, "video positions"),
        (forgotten_token, "layout"),
    ],
)
def test_wrong_layouts_are_found(llava, tmp_path, change, found):
    assert found in relabelled(llava, change, tmp_path)


def test_another_forward_is_found(llava, monkeypatch):
    plain = LlavaVideo.plain_logits
    monkeypatch.setattr(
        LlavaVideo, "plain_logits", lambda self, p: plain(self, p) + 1e-2 * plain(self, p).roll(1)
    )
    assert failed(llava) == {"own forward"}


def test_layers_that_share_a_number_are_found(llava, monkeypatch):
    monkeypatch.setattr(llava.decoder.layers[1].self_attn, "layer_idx", 0)
    assert {"layer numbers", "layers reached"} <= failed(llava)


def test_a_layer_that_ignores_its_mask_is_found(llava, monkeypatch):
    allowed = attention.active_edges

    def deaf(module, query, key, padding):
        mask = allowed(module, query, key, padding)
        return None if module.layer_idx == 1 and query.shape[2] == key.shape[2] else mask

    monkeypatch.setattr(attention, "active_edges", deaf)
    assert "layers reached" in failed(llava)


def test_cuts_that_begin_a_layer_early_are_found(llava, monkeypatch):
    mask_of = BatchMasks._mask_of
    last = llava.decoder.n_layers - 1
    monkeypatch.setattr(
        BatchMasks,
        "_mask_of",
        lambda self, layer, *sizes: mask_of(self, min(layer + 1, last), *sizes),
    )
    assert "layers reached" in failed(llava)


def test_cuts_that_take_other_rows_along_are_found(llava, monkeypatch):
    mask_of = BatchMasks._mask_of

    def spilling(self, layer, *sizes):
        mask = mask_of(self, layer, *sizes)
        return mask if self._full[layer] else mask & mask.roll(1, 2)

    monkeypatch.setattr(BatchMasks, "_mask_of", spilling)
    assert "causality" in failed(llava)


def test_masks_that_are_not_causal_are_found(llava, monkeypatch):
    mask_of = BatchMasks._mask_of
    monkeypatch.setattr(
        BatchMasks,
        "_mask_of",
        lambda self, layer, *sizes: mask_of(self, layer, *sizes) | (not self._full[layer]),
    )
    assert {"layers reached", "causality", "cut without effect"} & failed(llava)


def test_attention_that_is_not_the_textbooks_is_found(llava, monkeypatch):
    textbook = attention.eager_attention

    def off(*args):
        output, weights = textbook(*args)
        return output * 1.02, weights

    monkeypatch.setattr(attention, "eager_attention", off)
    assert failed(llava) == {"reference"}


def test_padding_that_is_read_is_found(llava, monkeypatch):
    def left_padded(sequences, batch_first):
        n = max(map(len, sequences))
        return torch.stack([torch.cat([s.new_zeros(n - len(s), s.shape[1]), s]) for s in sequences])

    monkeypatch.setattr(decoder, "pad_sequence", left_padded)
    assert failed(llava) == {"batching"}


def test_generated_rows_that_escape_the_cuts_are_found(llava, monkeypatch):
    def everything(compiled, layer, device="cpu"):
        return torch.ones(len(compiled), len(compiled[0].layout), dtype=torch.bool)

    monkeypatch.setattr(
        "mapflow.model_adapters.interventions.execution.kept_keys.allowed_keys", everything
    )
    assert failed(llava) == {"cached decoding"}


def test_dropping_keys_that_generated_rows_read_is_found(llava, monkeypatch):
    def without_the_first(compiled, layer, device="cpu"):
        keys = torch.stack([one.token_mask(layer)[-1] for one in compiled])
        keys[:, 0] = False
        return keys

    monkeypatch.setattr(
        "mapflow.model_adapters.interventions.execution.kept_keys.allowed_keys", without_the_first
    )
    assert failed(llava) == {"cached decoding"}


def test_hooks_left_behind_are_found(llava, monkeypatch):
    hooks = []

    @contextmanager
    def careless(self, branches):
        for layer in self.layers:
            hooks.append(layer.register_forward_pre_hook(lambda *_: None))
        yield
        hooks.pop().remove()  # not reached by an exception, and only one of them

    monkeypatch.setattr(decoder.Decoder, "_branching", careless)
    try:
        assert "left clean" in failed(llava)
    finally:
        for hook in hooks:
            hook.remove()


def test_a_check_that_raises_has_failed(llava, monkeypatch):
    def broken(subject):
        raise RuntimeError("no such\nthing")
        yield

    monkeypatch.setitem(run.CHECKS, "reference", broken)
    (finding,) = [finding for finding in verify(llava) if not finding.passed]
    assert str(finding).startswith("FAIL  reference") and "RuntimeError: no such thing" in str(
        finding
    )


def test_the_noise_measure():
    ones = torch.ones(4)
    assert distance(ones, ones) == 0
    assert distance(ones * 1.5, ones) == pytest.approx(0.5)
    assert distance(ones * torch.nan, ones) == float("inf")


def test_probe_questions_are_the_same_every_time(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    one, other = (probe_questions(tmp_path / name) for name in ("a", "b"))
    for q, r in zip(one, other, strict=True):
        assert Path(q.clip.path).read_bytes() == Path(r.clip.path).read_bytes()
    assert len(one[0].options) != len(one[1].options)


def test_residual_keeps_every_layers_output(llava, tmp_path):
    subject = ModelUnderTest.of(llava, probe_questions(tmp_path))
    residual = subject.residual(None)
    hidden = llava.decoder.core(
        inputs_embeds=subject.inputs[0].embeds[None], output_hidden_states=True
    ).hidden_states
    torch.testing.assert_close(residual[:-1], torch.cat(hidden[1:-1]))
    assert (
        len(residual) == llava.decoder.n_layers == tiny_config()["text_config"]["num_hidden_layers"]
    )

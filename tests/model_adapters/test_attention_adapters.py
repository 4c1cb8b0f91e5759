"""Attention maps of every family's tiny checkpoint, against the reference implementation on all
positions of the same prompt."""

from __future__ import annotations

import pytest
import torch
from test_frame_grid import OWN, load, question
from test_incremental_adapters import frames
from tiny_hf import FAMILIES
from tiny_llava import tiny_config, tiny_question, write_tiny_llava

from mapflow.harness.analyses.attention import AttentionMaps, check_rows
from mapflow.model_adapters.families.llava.model import LlavaVideo
from mapflow.model_adapters.interventions import BatchMasks, apply, parse_interventions
from mapflow.model_adapters.interventions.kernels.attention import EAGER, SDPA
from mapflow.model_adapters.video_llm import Prepared, VideoLLM
from mapflow.results.contract.errors import MapflowError
from mapflow.results.records.attention import PARTS

INTERVENTIONS = tuple(
    parse_interventions(["full,video->last@2-3,keep:all->system+all->last@2-4,random:ratio=0.3"])
)
FRAMES = {"llava": 28, "own_internvl": 28}


@torch.inference_mode()
def reference(model: VideoLLM, prepared: Prepared, intervention) -> list[torch.Tensor]:
    """`[head, query, key]` of every layer, by the reference implementation."""
    decoder, (inputs,) = model.decoder, model.embed([prepared])
    compiled = intervention.compile(
        prepared.layout, decoder.n_layers, model.pathways, prepared.question.question_id
    )
    caught: list[torch.Tensor] = []
    hooks = [
        layer.self_attn.register_forward_hook(lambda *seen: caught.append(seen[-1][1][0]))
        for layer in decoder.layers
    ]
    decoder.core.set_attn_implementation(EAGER)
    try:
        with apply(BatchMasks.of([compiled])), decoder.adding_vectors(inputs.added):
            decoder.core(
                inputs_embeds=inputs.embeds[None],
                position_ids=inputs.batched_position_ids,
                use_cache=False,
            )
    finally:
        decoder.core.set_attn_implementation(SDPA)
        for hook in hooks:
            hook.remove()
    return caught


@pytest.mark.parametrize("rows", ["last", "question"])
@pytest.mark.parametrize("family", [*OWN, *FAMILIES])
def test_records_are_the_references_means(family, rows, tmp_path):
    model = load(family, tmp_path)
    prepared = model.encode(question(family), frames(4, FRAMES.get(family, 16)))  # pyright: ignore[reportAttributeAccessIssue]
    layout = prepared.layout
    video, reading = layout.positions("video"), layout.positions(rows)
    records = AttentionMaps(INTERVENTIONS, rows).measure(model, prepared)
    assert [record.intervention for record in records] == list(map(str, INTERVENTIONS))
    for intervention, record in zip(INTERVENTIONS, records, strict=True):
        assert record.error is None and record.shares is not None and record.n_rows == len(reading)
        slow = torch.stack(
            [one[:, reading].mean((0, 1)) for one in reference(model, prepared, intervention)]
        )
        close = {"atol": 5e-6, "rtol": 1e-4}
        torch.testing.assert_close(torch.tensor(record.weights), slow[:, video], **close)
        assert list(record.shares) == list(PARTS)
        totals = torch.tensor([record.shares[part] for part in PARTS]).sum(0)
        torch.testing.assert_close(totals, slow.sum(-1), atol=1e-4, rtol=0)
        torch.testing.assert_close(
            torch.tensor(record.shares["video"]), slow[:, video].sum(-1), atol=1e-5, rtol=1e-4
        )
        for frame in range(layout.n_frames):
            own = layout.positions(f"frame[{frame}]")
            found = torch.tensor([layer[frame] for layer in record.by_frame])
            torch.testing.assert_close(found, slow[:, own].sum(-1), atol=1e-5, rtol=1e-4)
            assert video[torch.tensor(record.frames) == frame].tolist() == own.tolist()
    full, cut = records[:2]
    if rows == "last":
        assert cut.shares is not None and list(cut.shares["video"][1:3]) == [0.0, 0.0]
        assert all(weight == 0 for layer in cut.weights[1:3] for weight in layer)
        assert all(weight > 0 for weight in cut.weights[0])
    assert all(weight > 0 for layer in full.weights for weight in layer)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> LlavaVideo:
    return LlavaVideo.load(
        write_tiny_llava(tmp_path_factory.mktemp("tiny"), tiny_config(kv_heads=2))
    )


def ask(model: LlavaVideo, rows: str, intervention: str = "full", **changes):
    prepared = model.encode(tiny_question(**changes), frames(4, 28))
    return AttentionMaps(tuple(parse_interventions([intervention])), rows).measure(model, prepared)


def test_rows_that_the_prompt_lacks_are_said_with_the_reason(model):
    with pytest.raises(MapflowError) as caught:
        ask(model, "options", options=(), target="left")
    said = str(caught.value)
    assert said.startswith(
        "question tiny-1 cannot be mapped: this prompt has no 'options'; its segments are"
    )
    assert said.endswith("an open-ended question has no options") and "\n" not in said
    with pytest.raises(MapflowError, match=r"this prompt has no 'frame\[99\]'") as caught:
        ask(model, "frame[99]")
    assert "open-ended" not in str(caught.value)


def test_an_open_question_has_shares_too(model):
    (record,) = ask(model, "last", options=(), target="left")
    assert record.shares is not None
    assert sum(record.shares[part][0] for part in PARTS) == pytest.approx(1, abs=1e-4)


def test_rows_before_the_video_read_none_of_it(model):
    (record,) = ask(model, "system")
    assert record.shares is not None and set(record.shares["video"]) == {0.0}
    assert record.shares["system"][0] == pytest.approx(1, abs=1e-5)


def test_rows_without_any_key_lower_the_total(model):
    (record,) = ask(model, "last", "all->last@2")
    assert record.shares is not None
    totals = [sum(record.shares[part][layer] for part in PARTS) for layer in range(3)]
    assert totals == pytest.approx([1, 0, 1], abs=1e-5)


def test_weights_that_are_not_finite_are_an_error_of_the_question(tmp_path):
    model = LlavaVideo.load(write_tiny_llava(tmp_path))
    model.decoder.layers[1].self_attn.q_proj.weight.data.fill_(float("nan"))  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]
    (record,) = ask(model, "last")
    assert record.error == "the model's attention weights are not finite" and not record.weights


def test_a_question_that_could_not_be_asked():
    maps = AttentionMaps(INTERVENTIONS, "stem")
    records = maps.failed(tiny_question(), "no\n  such file")
    assert [record.error for record in records] == ["no such file"] * len(INTERVENTIONS)
    assert {record.rows for record in records} == {"stem"}


@pytest.mark.parametrize("name", ["last", " question ", "frame[3]", "option[0]", "true_option"])
def test_segments_are_rows(name):
    assert check_rows(name) == name.strip()


@pytest.mark.parametrize("name", ["", "quesion", "cross-frame", "a->b", "frame[x]", "last+stem"])
def test_what_is_no_segment_is_refused(name):
    with pytest.raises(MapflowError, match="names no segment; known: all, system, video"):
        check_rows(name)

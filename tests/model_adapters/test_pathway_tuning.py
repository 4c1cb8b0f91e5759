"""Training under interventions: gradients equal those of a plain masked forward pass.

Cut edges carry no gradient, and a few steps reduce the loss.
"""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from test_incremental_adapters import CHAT, frames
from test_internvl import frames_for
from test_mini_bundled import MINI, first_questions
from tiny_hf import FAMILIES, write_tiny_hf
from tiny_internvl import write_tiny_internvl
from tiny_llava import tiny_config, write_tiny_llava
from tiny_llava import tiny_question as tiny_llava_question

from mapflow.model_adapters.families.hf.model import HfVideo
from mapflow.model_adapters.families.internvl.model import InternVLVideo
from mapflow.model_adapters.families.llava.model import LlavaVideo
from mapflow.model_adapters.interventions import DecoderInputs, parse_intervention
from mapflow.model_adapters.interventions.execution.answers import answer_loss
from mapflow.model_adapters.interventions.kernels.attention import EAGER
from mapflow.model_adapters.training.pathway_tuning import (
    Regularisation,
    regularised_loss,
    trainable,
    tune,
)
from mapflow.model_adapters.video_llm import Prepared, VideoLLM
from mapflow.results.contract.errors import MapflowError

POLICY = "video->last+cross-frame@2-3+question->last@1"


def llava(folder) -> tuple[VideoLLM, Prepared]:
    model = LlavaVideo.load(write_tiny_llava(folder, tiny_config()), dtype=torch.float32)
    return model, model.encode(tiny_llava_question(), frames(4, 28))


def gradients(model: VideoLLM) -> list[torch.Tensor]:
    found = [p.grad for p in model.decoder.layers.parameters()]
    return [torch.zeros(1) if grad is None else grad.clone() for grad in found]


@pytest.mark.parametrize("answer", [[5], [5, 9, 7]])
def test_gradients_equal_those_of_the_reference(tmp_path, answer):
    """The reference attention is softmax over a dense mask in plain torch, with autograd."""
    model, prepared = llava(tmp_path)
    trainable(model)
    compiled = parse_intervention(POLICY).compile(prepared.layout, model.decoder.n_layers)
    (inputs,) = model.embed([prepared])
    found = []
    for attention in (None, EAGER):
        if attention:
            model.decoder.core.set_attn_implementation(attention)
        model.model.zero_grad()
        copied = DecoderInputs(inputs.embeds.clone())
        loss = answer_loss(model.decoder, copied, compiled, torch.tensor(answer))
        loss.backward()
        found.append((loss.detach(), gradients(model)))
    (fast, own), (slow, theirs) = found
    torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-6)
    assert sum(float(grad.abs().sum()) for grad in theirs) > 0
    for one, other in zip(own, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_what_cannot_reach_the_answer_gets_no_gradient(tmp_path):
    model, prepared = llava(tmp_path)
    layout, n_layers = prepared.layout, model.decoder.n_layers
    (encoded,) = model.embed([prepared])
    touched = {}
    for text in ("full", "video->last+video->question+video->template", "video->last"):
        embeds = encoded.embeds.clone().requires_grad_(True)
        compiled = parse_intervention(text).compile(layout, n_layers)
        answer_loss(model.decoder, DecoderInputs(embeds), compiled, torch.tensor([5])).backward()
        assert embeds.grad is not None
        touched[text] = bool((embeds.grad[layout.positions("video")] != 0).any())
    assert touched == {
        "full": True,
        "video->last+video->question+video->template": False,
        "video->last": True,
    }


def test_a_loss_is_the_answer_s_probability_in_a_run_without_gradients(tmp_path):
    model, prepared = llava(tmp_path)
    compiled = parse_intervention(POLICY).compile(prepared.layout, model.decoder.n_layers)
    (logits,) = model.decoder.answer_logits(model.embed([prepared]), [[compiled]])
    loss = regularised_loss(model, prepared, parse_intervention(POLICY))
    assert float(loss) == pytest.approx(
        -float(logits[0].log_softmax(-1)[prepared.target_id]), abs=1e-5
    )


@pytest.mark.parametrize("family", ["internvl", *FAMILIES])
def test_every_family_trains(tmp_path, family):
    """Includes positions with several axes and vectors added between layers."""
    if family == "internvl":
        model = InternVLVideo.load(write_tiny_internvl(tmp_path), dtype=torch.float32)
        prepared = model.encode(tiny_llava_question(), frames_for())
    else:
        model = HfVideo.load(write_tiny_hf(tmp_path, family), dtype=torch.float32)
        prepared = model.encode(CHAT, frames(4, 16))
    optimizer = torch.optim.AdamW(trainable(model), lr=3e-3)
    policy = parse_intervention("video->last+cross-frame@1")
    losses = []
    for _ in range(6):
        loss = regularised_loss(model, prepared, policy)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.05
    frozen = [p for p in model.model.parameters() if not p.requires_grad]
    assert frozen and all(p.grad is None for p in frozen)


def test_a_policy_s_share_of_the_steps_and_its_order_depend_on_seed_and_number_alone():
    a, b = parse_intervention("effective"), parse_intervention("video->last")
    drawn = [
        str(Regularisation((a, b), share=0.6, seed=3).of_step(number)) for number in range(3000)
    ]
    counts = Counter(drawn)
    assert counts["full"] == pytest.approx(1200, abs=120)
    assert counts["effective"] == pytest.approx(900, abs=120)
    assert drawn[7] == str(Regularisation((a, b), share=0.6, seed=3).of_step(7))
    assert drawn != [
        str(Regularisation((a, b), share=0.6, seed=4).of_step(number)) for number in range(3000)
    ]


def test_tuning_teaches_the_natural_model_a_policy_that_it_does_not_follow():
    """Its answers without video->last improve on these questions; resuming gives the same steps."""
    questions = first_questions("direction")[:4]
    policy = parse_intervention("video->last")

    def losses(model: VideoLLM) -> float:
        with torch.no_grad():
            return sum(float(regularised_loss(model, model.prepare(q), policy)) for q in questions)

    model = LlavaVideo.load(MINI / "natural", dtype="float32")
    optimizer = torch.optim.SGD(trainable(model), lr=3e-2)
    before = losses(model)
    regularisation = Regularisation((policy,), share=0.75, seed=0)
    steps = list(tune(model, questions, regularisation, optimizer, 6))
    steps += tune(model, questions, regularisation, optimizer, 6, first=6)
    assert [step.number for step in steps] == list(range(12))
    assert {step.intervention for step in steps} == {"full", "video->last"}
    assert losses(model) < 0.7 * before


def test_bad_input_names_what_to_do():
    policy = (parse_intervention("effective"),)
    with pytest.raises(MapflowError, match=r"share=1.5 .* outside 0..1"):
        Regularisation(policy, share=1.5)
    with pytest.raises(MapflowError, match="at least one intervention"):
        Regularisation(())

"""The incremental executor through every adapter, from frames on: all routes, styles and windows at
once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from tiny_hf import FAMILIES, write_tiny_hf
from tiny_llava import tiny_config, write_tiny_llava
from tiny_llava import tiny_question as tiny_llava_question

from mapflow.model_adapters.families.hf.model import HfVideo
from mapflow.model_adapters.families.llava.model import LlavaVideo
from mapflow.model_adapters.interventions import (
    BatchMasks,
    Compiled,
    DecoderInputs,
    apply,
    parse_intervention,
)
from mapflow.model_adapters.interventions.execution.incremental import answer_logits
from mapflow.model_adapters.video_llm import Prepared, VideoLLM
from mapflow.results.contract.question import Clip, Prompt, Question

SINGLE, DOUBLE = 1e-6, 1e-7
ROUTES = (
    "cross-frame",
    "video->question",
    "video->last",
    "question->last",
    "last->last",
    "stem->last",
    "true_option->last",
    "false_options->last",
    "video->stem",
    "stem->true_option",
    "video->true_option",
)


CHAT = Question(
    question_id="tiny-1",
    video_id="tiny",
    task="tiny",
    clip=Clip("tiny.mp4"),
    stem="Which way does the ball roll?",
    options=("to the left", "to the right"),
    target=1,
    protocol="paper",
    prompts={
        "chat": Prompt(
            system="",
            stem_label="Question: ",
            options_label="\nOptions:\n",
            option="({letter}) {text}",
            option_separator="\n",
            instruction="\nAnswer with the option's letter from the given choices directly.",
            answer_prefix="",
        )
    },
)


def frames(n: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def sweep(prepared: Prepared, n_layers: int) -> list[Compiled]:
    texts = ["full"]
    for layer in range(1, n_layers + 1):
        sized = [
            f"{style}={layer},window={k}" for style in ("center", "inverse") for k in (1, 3, 9)
        ]
        windows = [*sized, f"top-down={layer}", f"bottom-up={layer}"]
        texts += [f"knockout:{route}@{window}" for route in ROUTES for window in windows]
    return [parse_intervention(text).compile(prepared.layout, n_layers) for text in texts]


@torch.inference_mode()
def naive(model: VideoLLM, prepared: Prepared, compiled: Sequence[Compiled]) -> torch.Tensor:
    (inputs,) = model.embed([prepared])
    rows = []
    for one in compiled:
        with apply(BatchMasks.of([one])), model.decoder.adding_vectors(inputs.added):
            hidden = model.decoder.core(
                inputs_embeds=inputs.embeds[None],
                position_ids=inputs.batched_position_ids,
                use_cache=False,
            ).last_hidden_state
        rows.append(model.decoder.logits(hidden[:, -1]))
    return torch.cat(rows).softmax(-1)


def check(model: VideoLLM, prepared: Prepared, bound: float) -> None:
    compiled = sweep(prepared, model.decoder.n_layers)
    (inputs,) = model.embed([prepared])
    fast = answer_logits(model.decoder, inputs, compiled).softmax(-1)
    slow = naive(model, prepared, compiled)
    assert (slow - slow[0]).abs().max().item() > 1000 * bound, (
        "the cuts change nothing: the test shows nothing"
    )
    assert (fast - slow).abs().max().item() <= bound


@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_llava(tmp_path, kv_heads, dtype):
    model = LlavaVideo.load(
        write_tiny_llava(tmp_path, tiny_config(kv_heads=kv_heads)), dtype=torch.float32
    )
    model.model.to(dtype)
    if dtype == torch.float32:
        model.network.language_model.lm_head.weight.data.mul_(0.3)
    prepared = model.encode(tiny_llava_question(), frames(4, 28))
    check(model, prepared, SINGLE if dtype == torch.float32 else DOUBLE)


@pytest.mark.parametrize("family", FAMILIES)
def test_families_of_transformers(tmp_path, family):
    """Rotary tables of several axes, vectors added between layers, and whatever else they pass to
    their layers."""
    model = HfVideo.load(write_tiny_hf(tmp_path, family), dtype=torch.float32)
    prepared = model.encode(CHAT, frames(4, 16))
    (single,) = model.embed([prepared])
    double = DecoderInputs(
        single.embeds.double(),
        single.position_ids,
        {k: v.double() for k, v in single.added.items()},
    )
    model.decoder.core.double()
    model.model.get_output_embeddings().double()
    model.embed = lambda items: [double]  # type: ignore[method-assign]
    check(model, prepared, DOUBLE)

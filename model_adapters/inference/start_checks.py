"""What is asked once at the start of every run, with its first question.

Two things that nothing else would show. The run without cuts must be the model's own, unmodified
forward. And a video that is cut from everything in all layers must not reach the answer: with other
pixels, every bit of the logits must stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mapflow.model_adapters.interventions import Compiled, DecoderInputs
from mapflow.model_adapters.interventions.inspection.layers import numbered
from mapflow.model_adapters.interventions.inspection.noise import NOISE, distance
from mapflow.model_adapters.video_llm import Prepared, VideoLLM
from mapflow.results.contract.errors import MapflowError


@torch.inference_mode()
def start_checks(model: VideoLLM, prepared: Prepared, inputs: DecoderInputs) -> dict[str, Any]:
    """Entries of the manifest: `checks`, `layers`, and `uncut_layers` where there are any.

    Four forward passes of one prompt. `inputs` are those of `prepared`. Raises MapflowError if the
    run without cuts is not the model's own, if the video reaches the answer although it is cut, or
    if it does not reach the language model at all.
    """
    found = model.decoder.found
    checks: dict[str, Any] = {"question": prepared.question.question_id}
    checks["own_forward"] = _own_forward(model, prepared, inputs)
    checks["isolation"] = isolation(model, prepared, inputs)
    if checks["isolation"] is None and any(one.kind == "frame" for one in prepared.layout.segments):
        raise MapflowError(
            f"{model.name}: other pixels change nothing that its language model receives, so it"
            " does not see the video: this model cannot be run"
        )
    about = {"checks": checks, "layers": model.decoder.n_layers}
    if found.mixing:
        return {**about, "uncut_layers": uncut_sentence(model)}
    if checks["isolation"] and not checks["isolation"]["isolated"]:
        raise MapflowError(
            f"{model.name}: with the video cut from everything in all layers, other pixels still"
            f" change the logits by {checks['isolation']['max_difference']:.1e}: information flows"
            " outside the attention that is cut, so this model cannot be run"
        )
    return about


def uncut_sentence(model: VideoLLM) -> str:
    """One sentence about layers that mix positions where cuts do not act."""
    found = model.decoder.found
    parts = [
        f"layers {numbered(some)} {what}"
        + ("" if found.attends.issuperset(some) else " and have no edges")
        for some, what in found.uncut_groups
    ]
    return f"{' and '.join(parts)}: cuts do not act there (--allow-uncut-layers)"


def _own_forward(
    model: VideoLLM, prepared: Prepared, inputs: DecoderInputs
) -> dict[str, float] | None:
    """How far `full` is from the model's own forward; None for a family without one."""
    try:
        own = own_logits(model, prepared)
    except NotImplementedError:
        return None
    full = _logits(model, inputs, _compiled(model, prepared, inputs, isolated=False))
    apart, bound = distance(full, own), NOISE[inputs.embeds.dtype].logits
    if not apart <= bound:
        raise MapflowError(
            f"{model.name}: the logits without cuts differ from the model's own forward by"
            f" {apart:.1e} of their norm, and rounding of"
            f" {str(inputs.embeds.dtype).removeprefix('torch.')} explains at most {bound:.0e}: this"
            " model cannot be run"
        )
    return {
        "max_difference": float((full - own).abs().max()),
        "relative": apart,
        "bound": bound,
    }


def own_logits(model: VideoLLM, prepared: Prepared) -> Float[Tensor, " vocab"]:
    """The model's own forward, with the attention that it was loaded with."""
    with attention_of(model, model.decoder.own_attention):
        return model.plain_logits(prepared)


@contextmanager
def attention_of(model: VideoLLM, name: str) -> Iterator[None]:
    """Within this block the language model uses another attention function."""
    core = model.decoder.core
    usual = str(core.config._attn_implementation)
    core.set_attn_implementation(name)
    try:
        yield
    finally:
        core.set_attn_implementation(usual)


def isolation(model: VideoLLM, prepared: Prepared, inputs: DecoderInputs) -> dict[str, Any] | None:
    """Whether other pixels leave the logits as they are, the video being cut from everything.

    Bits must not change. Where layers choose experts for each token, kernels get other shapes, and
    rounding is allowed. None if the prompt has no pixels, or if they change no embedding.
    """
    (other,) = model.embed([replace(prepared, vision=_other_pixels(prepared))])
    if torch.equal(other.embeds, inputs.embeds):
        return None
    cut = _compiled(model, prepared, inputs, isolated=True)
    one, two = (_logits(model, each, cut) for each in (inputs, other))
    equal = torch.equal(one, two)
    # with token types, tokens next to the video may share experts with it
    rounding = not model.decoder.found.exact or bool(inputs.arguments)
    return {
        "isolated": equal or (rounding and distance(two, one) <= NOISE[one.dtype].logits),
        "bit_equal": equal,
        "max_difference": float((one - two).abs().max()),
    }


def _other_pixels(prepared: Prepared) -> dict[str, Tensor]:
    """Noise within the range of the pixels, which some processors hand on as bytes."""
    generator = torch.Generator().manual_seed(0)
    found = dict(prepared.vision)
    for name, value in found.items():
        if value.numel() and (value.is_floating_point() or value.dtype == torch.uint8):
            low, high = float(value.min()), float(value.max())
            noise = torch.rand(value.shape, generator=generator)
            found[name] = (low + noise * max(high - low, 1.0)).to(value)
    return found


def _compiled(
    model: VideoLLM, prepared: Prepared, inputs: DecoderInputs, isolated: bool
) -> Compiled:
    """Without cuts, or with the video cut from all other positions in all layers."""
    segments = prepared.layout.segments
    allowed = np.ones((model.decoder.n_layers, len(segments), len(segments)), dtype=bool)
    if isolated:
        video = np.array([one.kind == "frame" for one in segments])
        allowed[:, ~video[:, None] & video] = False
    own = model.decoder.own_edges(inputs)
    return Compiled(prepared.layout, allowed, prepared.question.question_id, own=own)


def _logits(model: VideoLLM, inputs: DecoderInputs, compiled: Compiled) -> Float[Tensor, " vocab"]:
    return model.decoder.answer_logits([inputs], [[compiled]])[0][0]

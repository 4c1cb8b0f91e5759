"""Runs leave the model and transformers' registries unchanged, also if they end in an exception."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from mapflow.harness.verification.model_under_test import Finding, ModelUnderTest, hook_counts


class Interruption(Exception):
    """Raised deliberately in the middle of a forward pass."""


def check_cleanliness(subject: ModelUnderTest) -> Iterator[Finding]:
    """Compares hooks, registries and settings before and after a run, and the bits of `full`."""
    before = _state(subject)
    full = subject.logits("full")
    _run_all(subject)
    yield _compared("left clean", before, _state(subject), "after a run")

    def interrupt(*_: Any) -> None:
        raise Interruption

    decoder = subject.model.decoder
    hook = decoder.layers[subject.n_layers // 2].register_forward_pre_hook(interrupt)
    stopped = False
    try:
        _run_all(subject)
    except Interruption:
        stopped = True
    finally:
        hook.remove()
    finding = _compared("left clean", before, _state(subject), "after an exception")
    again = subject.logits("full")
    same = stopped and torch.equal(again, full)
    yield finding
    yield Finding(
        "left clean", same, "`full` gives the same bits as before" if same else "`full` has changed"
    )


def _run_all(subject: ModelUnderTest) -> None:
    decoder, texts = subject.model.decoder, list(subject.trials.values())
    compiled = [[subject.compiled(t, i) for t in texts] for i in range(len(subject.prepared))]
    decoder.answer_logits(subject.inputs, compiled)
    decoder.generate(subject.inputs[0], compiled[0], 2)
    subject.model.embed(subject.prepared)


def _state(subject: ModelUnderTest) -> dict[str, Any]:
    attention = {
        name: ALL_ATTENTION_FUNCTIONS[name] for name in ALL_ATTENTION_FUNCTIONS.valid_keys()
    }
    masks = {
        name: ALL_MASK_ATTENTION_FUNCTIONS[name]
        for name in ALL_MASK_ATTENTION_FUNCTIONS.valid_keys()
    }
    return {
        "hooks": hook_counts(subject.model.model),
        "attention registry": attention,
        "mask registry": masks,
        "attention implementation": subject.model.decoder.core.config._attn_implementation,
    }


def _compared(name: str, before: dict[str, Any], after: dict[str, Any], when: str) -> Finding:
    changed = [key for key in before if before[key] != after[key]]
    detail = (
        f"{', '.join(changed)} changed"
        if changed
        else "hooks, registries and settings are unchanged"
    )
    return Finding(name, not changed, f"{when}: {detail}")

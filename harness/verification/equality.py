"""Fast and slow ways to the same numbers must agree up to rounding.

- `full` through the instrument and the model's own forward with its own attention
- the fast attention function and the float32 reference implementation
- several prompts and interventions in one batch, and one at a time
- decoding with a cache, and recomputing the whole sequence for every token
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from mapflow.harness.verification.model_under_test import Finding, ModelUnderTest
from mapflow.model_adapters.inference.start_checks import own_logits
from mapflow.model_adapters.interventions import Compiled, DecoderInputs, Segment, TokenLayout
from mapflow.model_adapters.interventions.inspection.noise import NOISE, distance
from mapflow.model_adapters.interventions.kernels.attention import EAGER
from mapflow.model_adapters.interventions.language.own_edges import OwnEdges
from mapflow.results.contract.visible_text import counted

NEW_TOKENS = 5
GENERATED = Segment("last", 1)


def check_own_forward(subject: ModelUnderTest) -> Iterator[Finding]:
    """`full` against the model with its own attention function restored."""
    bound = NOISE[subject.dtype].logits
    for index, prepared in enumerate(subject.prepared):
        own = own_logits(subject.model, prepared)
        apart = distance(subject.logits("full", index), own)
        name = prepared.question.question_id
        detail = f"question {name!r}: {apart:.1e} apart, bound {bound:.0e}"
        yield Finding("own forward", apart <= bound, detail)


def check_reference(subject: ModelUnderTest) -> Iterator[Finding]:
    """The same interventions with scores, mask, softmax and weighted sum written out in float32."""
    bound = max(NOISE[subject.dtype].logits, NOISE[torch.float32].logits)
    full = subject.logits("full")
    for name, text in subject.trials.items():
        fast = subject.logits(text)
        with subject.attention(EAGER):
            slow = subject.logits(text)
        apart, effect = distance(fast, slow), distance(fast, full)
        detail = f"{name}: {apart:.1e} apart, bound {bound:.0e}"
        moved = f" (moves the logits by {effect:.1e})" if effect else ""
        yield Finding("reference", apart <= bound, detail + moved)


def check_batching(subject: ModelUnderTest) -> Iterator[Finding]:
    """All questions under all interventions in one call, and all clips encoded in one call."""
    bound = NOISE[subject.dtype].logits
    questions = range(len(subject.prepared))
    texts = list(subject.trials.values())
    together = subject.model.decoder.answer_logits(
        subject.inputs, [[subject.compiled(text, index) for text in texts] for index in questions]
    )
    apart = max(
        distance(together[index][row], subject.logits(text, index))
        for index in questions
        for row, text in enumerate(texts)
    )
    lengths = sorted(len(prepared.layout) for prepared in subject.prepared)
    batch = f"prompts of {lengths[0]} and {lengths[-1]} positions × {len(texts)} interventions"
    yield Finding("batching", apart <= bound, f"{batch}: {apart:.1e} apart, bound {bound:.0e}")
    alone = [subject.model.embed([prepared])[0].embeds for prepared in subject.prepared]
    apart = max(distance(both.embeds, one) for both, one in zip(subject.inputs, alone, strict=True))
    detail = f"clips encoded together: {apart:.1e} apart, bound {bound:.0e}"
    yield Finding("batching", apart <= bound, detail)


def check_decoding(subject: ModelUnderTest) -> Iterator[Finding]:
    """Cached greedy decoding against one forward over prompt and generated tokens for every step.

    A token that differs from the recomputed best one is accepted if it is as likely, up to
    rounding.
    """
    bound = NOISE[subject.dtype].logits
    inputs, decoder = subject.inputs[0], subject.model.decoder
    for name in ("full", "effective", "knockout"):
        compiled = subject.compiled(subject.trials[name])
        (tokens,), _ = decoder.generate(inputs, [compiled], NEW_TOKENS)
        worst = 0.0
        for step, token in enumerate(tokens):
            longer = with_tokens(subject, inputs, tokens[:step])
            own = decoder.own_edges(longer) if longer.special else None
            ((logits,),) = decoder.answer_logits([longer], [[with_positions(compiled, step, own)]])
            behind = (logits.max() - logits[token]) / logits.abs().max().clamp_min(1e-30)
            worst = max(worst, float(behind))
        written = counted(len(tokens), "token")
        detail = f"{name}: {written}, at most {worst:.1e} below the recomputed best"
        passed = len(tokens) == NEW_TOKENS and worst <= bound
        yield Finding("cached decoding", passed, f"{detail}, bound {bound:.0e}")


def with_tokens(
    subject: ModelUnderTest, inputs: DecoderInputs, tokens: Sequence[int]
) -> DecoderInputs:
    """The first prompt followed by text tokens."""
    if not tokens:
        return inputs
    return subject.model.continued(subject.prepared[0], inputs, tokens)


def with_positions(compiled: Compiled, n: int, own: OwnEdges | None = None) -> Compiled:
    """The intervention on a prompt with `n` generated positions after it.

    `own` are the model's own edges of the longer prompt, where it has a mask of its own.

    Generated positions attend to the prompt as its last position does, and freely to each other.
    """
    if n == 0:
        return compiled
    layout, allowed = compiled.layout, compiled.allowed
    last = int(layout.segment_of[-1])
    longer = np.pad(allowed, ((0, 0), (0, 1), (0, 1)), constant_values=True)
    longer[:, -1, :-1] = allowed[:, last]
    segment_of = np.pad(layout.segment_of, (0, n), constant_values=len(layout.segments))
    segments = (*layout.segments, GENERATED)
    return Compiled(TokenLayout(segments, segment_of, layout.true_option), longer, own=own)

"""Does decoding with a cache write what a full recomputation for every token would write?

The recomputation takes the generated tokens as part of a longer prompt, with a segment of their own that reads what the
last prompt row reads, and itself (design.md, Interventions).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from mapflow.harness.verification.finding import Finding
from mapflow.harness.verification.noise import BOUNDS
from mapflow.harness.verification.subject import Subject
from mapflow.model_adapters.interventions import Compiled, DecoderInputs, Segment, TokenLayout

NEW_TOKENS = 5
GENERATED = Segment("last", 1)


def check_decoding(subject: Subject) -> Iterator[Finding]:
    bound = BOUNDS[subject.dtype]
    inputs, decoder = subject.inputs[0], subject.model.decoder
    for name in ("full", "effective", "knockout"):
        compiled = subject.compiled(subject.trials[name])
        (tokens,), _ = decoder.generate(inputs, [compiled], NEW_TOKENS)
        worst = 0.0
        for step, token in enumerate(tokens):
            longer = with_tokens(subject, inputs, tokens[:step])
            ((logits,),) = decoder.answer_logits([longer], [[with_rows(compiled, step)]])
            # another token is right only where it is as likely, up to noise
            worst = max(
                worst, float((logits.max() - logits[token]) / logits.abs().max().clamp_min(1e-30))
            )
        told = f"{name}: {len(tokens)} tokens, at most {worst:.1e} below the recomputed best, bound {bound:.0e}"
        yield Finding("cached decoding", len(tokens) == NEW_TOKENS and worst <= bound, told)


def with_tokens(subject: Subject, inputs: DecoderInputs, tokens: Sequence[int]) -> DecoderInputs:
    """The prompt followed by text tokens."""
    if not tokens:
        return inputs
    table = subject.model.decoder.core.get_input_embeddings()
    return inputs.followed_by(table(torch.tensor(tokens, device=subject.model.decoder.device)))


def with_rows(compiled: Compiled, n: int) -> Compiled:
    """The intervention on a prompt with `n` generated positions behind it."""
    if n == 0:
        return compiled
    layout, allowed = compiled.layout, compiled.allowed
    last = int(layout.segment_of[-1])
    longer = torch.ones(
        allowed.shape[0], allowed.shape[1] + 1, allowed.shape[2] + 1, dtype=torch.bool
    )
    longer[:, :-1, :-1] = allowed
    longer[:, -1, :-1] = allowed[:, last]
    segment_of = torch.cat([layout.segment_of, torch.full((n,), len(layout.segments))])
    return Compiled(
        TokenLayout((*layout.segments, GENERATED), segment_of, layout.true_option), longer
    )

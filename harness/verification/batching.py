"""Are a question's probabilities the same alone and padded in a batch, beside other questions and interventions?"""

from __future__ import annotations

from collections.abc import Iterator

from mapflow.harness.verification.finding import Finding
from mapflow.harness.verification.noise import BOUNDS, distance
from mapflow.harness.verification.subject import Subject


def check_batching(subject: Subject) -> Iterator[Finding]:
    """All questions under all interventions in one call, against each in a call of its own; and clips encoded together."""
    bound = BOUNDS[subject.dtype]
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
    told = f"prompts of {lengths[0]} and {lengths[-1]} positions × {len(texts)} interventions"
    yield Finding("batching", apart <= bound, f"{told}: {apart:.1e} apart, bound {bound:.0e}")
    alone = [subject.model.embed([prepared])[0].embeds for prepared in subject.prepared]
    apart = max(distance(both.embeds, one) for both, one in zip(subject.inputs, alone, strict=True))
    yield Finding(
        "batching", apart <= bound, f"clips encoded together: {apart:.1e} apart, bound {bound:.0e}"
    )

"""Is `full` the model's own forward, as it runs without us on transformers' sdpa?"""

from __future__ import annotations

from collections.abc import Iterator

from mapflow.harness.verification.finding import Finding
from mapflow.harness.verification.noise import BOUNDS, distance
from mapflow.harness.verification.subject import Subject


def check_own_forward(subject: Subject) -> Iterator[Finding]:
    """`full` through the instrument against the model with its attention function given back."""
    bound = BOUNDS[subject.dtype]
    for index, prepared in enumerate(subject.prepared):
        with subject.attention("sdpa"):
            plain = subject.model.plain_logits(prepared)
        apart = distance(subject.logits("full", index), plain)
        name = prepared.question.question_id
        yield Finding(
            "own forward",
            apart <= bound,
            f"question {name!r}: {apart:.1e} apart, bound {bound:.0e}",
        )

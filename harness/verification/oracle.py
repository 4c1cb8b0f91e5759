"""Does the fast attention function agree with the textbook's, in float32 and under every kind of cut?"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from mapflow.harness.verification.finding import Finding
from mapflow.harness.verification.noise import BOUNDS, distance
from mapflow.harness.verification.subject import Subject
from mapflow.model_adapters.interventions.kernels.attention import EAGER


def check_oracle(subject: Subject) -> Iterator[Finding]:
    """The same run with scores, mask, softmax and sum written out (`interventions/oracle.py`)."""
    bound = max(BOUNDS[subject.dtype], BOUNDS[torch.float32])
    full = subject.logits("full")
    for name, text in subject.trials.items():
        fast = subject.logits(text)
        with subject.attention(EAGER):
            slow = subject.logits(text)
        apart, moved = distance(fast, slow), distance(fast, full)
        told = f"{name}: {apart:.1e} apart, bound {bound:.0e}"
        yield Finding(
            "oracle",
            apart <= bound,
            told + (f" (moves the logits by {moved:.1e})" if moved else ""),
        )

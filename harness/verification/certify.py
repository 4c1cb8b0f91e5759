"""All checks on one model, in the order in which a failure explains the next."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from mapflow.harness.verification.batching import check_batching
from mapflow.harness.verification.causality import check_causality
from mapflow.harness.verification.cleanliness import check_cleanliness
from mapflow.harness.verification.decoding import check_decoding
from mapflow.harness.verification.finding import Finding
from mapflow.harness.verification.layers import check_layers
from mapflow.harness.verification.layout import check_layout
from mapflow.harness.verification.oracle import check_oracle
from mapflow.harness.verification.own_forward import check_own_forward
from mapflow.harness.verification.probe import probe_questions
from mapflow.harness.verification.subject import Subject
from mapflow.model_adapters.video_llm import VideoLLM
from mapflow.results.contract.question import Question

Check = Callable[[Subject], Iterator[Finding]]

CHECKS: dict[str, Check] = {
    "layout": check_layout,
    "own forward": check_own_forward,
    "layers": check_layers,
    "causality": check_causality,
    "oracle": check_oracle,
    "batching": check_batching,
    "cached decoding": check_decoding,
    "left clean": check_cleanliness,
}


def verify(model: VideoLLM, questions: Sequence[Question] | None = None) -> Iterator[Finding]:
    """Findings as they come; a check that raises has failed. `questions` default to two about clips rendered here.

    Raises MapflowError where the model cannot prepare the questions at all.
    """
    if questions is None:
        with tempfile.TemporaryDirectory() as folder:
            subject = Subject.of(model, probe_questions(Path(folder)))
    else:
        subject = Subject.of(model, questions)
    for name, check in CHECKS.items():
        try:
            yield from check(subject)
        except Exception as error:
            reason = " ".join(str(error).split())
            yield Finding(name, False, f"stopped by {type(error).__name__}: {reason}")

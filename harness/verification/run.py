"""Runs all checks on one model, in the order in which a failure explains the next one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from mapflow.harness.verification.cleanliness import check_cleanliness
from mapflow.harness.verification.equality import (
    check_batching,
    check_decoding,
    check_own_forward,
    check_reference,
)
from mapflow.harness.verification.layout import check_layout
from mapflow.harness.verification.locality import (
    check_causality,
    check_isolation,
    check_layers,
)
from mapflow.harness.verification.model_under_test import Finding, ModelUnderTest
from mapflow.harness.verification.probe import probe_questions
from mapflow.model_adapters.video_llm import VideoLLM
from mapflow.results.contract.question import Question
from mapflow.results.runs.temporary import temporary_folder

Check = Callable[[ModelUnderTest], Iterator[Finding]]

CHECKS: dict[str, Check] = {
    "layout": check_layout,
    "own forward": check_own_forward,
    "layers": check_layers,
    "causality": check_causality,
    "isolation": check_isolation,
    "reference": check_reference,
    "batching": check_batching,
    "cached decoding": check_decoding,
    "left clean": check_cleanliness,
}


def verify(model: VideoLLM, questions: Sequence[Question] | None = None) -> Iterator[Finding]:
    """Yields findings as they are made. A check that raises an exception has failed.

    `questions` defaults to two questions about clips that are rendered for the purpose.
    Raises MapflowError if the model cannot prepare the questions at all.
    """
    if questions is None:
        with temporary_folder() as folder:
            subject = ModelUnderTest.of(model, probe_questions(folder))
    else:
        subject = ModelUnderTest.of(model, questions)
    for name, check in CHECKS.items():
        try:
            yield from check(subject)
        except Exception as error:
            reason = " ".join(str(error).split())
            yield Finding(name, False, f"stopped by {type(error).__name__}: {reason}")

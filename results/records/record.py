"""Record: what one intervention made of one question, and its line in records.jsonl.

Everything a table, a test of significance or a per-question viewer needs later; nothing that depends on when or in
which order it was measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from mapflow.results.records.base import Line


@dataclass(frozen=True)
class Record(Line):
    """One question × intervention.

    `prediction` is the generated text (with first-token scoring: the token of the full-vocabulary argmax), `p_answer`
    its first token's probability and `p_target` the right answer's. `option_probs` are the letters' probabilities over
    the whole vocabulary, `option_prediction` the best of them and `margin` its lead over the second best in log
    probability: they tell "lost the format" from "lost the evidence". `valid`: the prediction names an option.
    Edges count one head, over all layers. `error` is the reason why a question could not be asked; its answer fields
    are then empty and it counts for no accuracy.
    """

    FILE: ClassVar[str] = "records.jsonl"
    RUN: ClassVar[str] = "a run"

    question_id: str
    video_id: str
    task: str
    intervention: str
    seed: int | None
    protocol: str
    n_options: int
    target: str
    prediction: str | None = None
    correct: bool | None = None
    valid: bool | None = None
    p_answer: float | None = None
    p_target: float | None = None
    option_probs: dict[str, float] | None = None
    option_prediction: str | None = None
    margin: float | None = None
    edges_kept: int | None = None
    edges_total: int | None = None
    n_tokens: int | None = None
    frame_indices: tuple[int, ...] | None = None
    repeated_frames: int | None = None
    error: str | None = None

    @property
    def key(self) -> tuple[str, str]:
        """What makes a record unique within a run, and its place in a sorted file."""
        return self.question_id, self.intervention

    @property
    def chance(self) -> float:
        """Accuracy of a uniform guess on this question."""
        return 1 / self.n_options if self.n_options else 0.0


def log_margin(probabilities: dict[str, float]) -> float | None:
    """Lead of the best option over the second best, in natural log probability; None with fewer than two options."""
    best = sorted(probabilities.values(), reverse=True)[:2]
    if len(best) < 2 or best[1] <= 0:
        return None
    return math.log(best[0] / best[1])

"""Record: a question's answer under one intervention, one line of records.jsonl.

It holds what tables, significance tests and the per-question viewer need, and nothing that depends
on when or in which order questions were answered.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from mapflow.results.records.base import JsonlRecord


@dataclass(frozen=True)
class Record(JsonlRecord):
    """The answer to one question under one intervention.

    Attributes:
        prediction: the generated text; with first-token scoring the token of the full-vocabulary
            argmax.
        valid: the prediction names an option.
        p_answer, p_target: probability of the first token of the prediction and of the right
            answer.
        option_probs: probability of each option's letter, over the whole vocabulary.
        option_prediction: the most probable letter. With `margin`, its lead over the second in
            natural log probability, it tells a lost answer format from lost evidence.
        edges_kept, edges_total: attention edges of one head, summed over all layers.
        error: why the question failed; its answer fields are then empty and it counts for no
            accuracy.
        scores: metric → score of this answer by the own rules of a task of lmms-eval's. A question
            that nothing here can score has neither these nor `correct`.
        n_right: how many options have the right answer's text, if more than one: each is right.
            `target` and `p_target` are those of the first (the authors' code takes the last).
    """

    FILE: ClassVar[str] = "records.jsonl"
    RUN: ClassVar[str] = "a run"
    OPTIONAL: ClassVar[frozenset[str]] = frozenset({"n_right", "scores"})

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
    scores: dict[str, float] | None = None
    n_right: int | None = None

    @property
    def chance(self) -> float | None:
        """Accuracy of a uniform guess on this question; None without options to guess among."""
        return (self.n_right or 1) / self.n_options if self.n_options else None


def log_margin(probabilities: dict[str, float]) -> float | None:
    """Lead of the best option over the second, in natural log probability; None with fewer than
    two.
    """
    best = sorted(probabilities.values(), reverse=True)[:2]
    if len(best) < 2 or best[1] <= 0:
        return None
    return math.log(best[0] / best[1])

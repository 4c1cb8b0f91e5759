"""Averages over subtasks, each counting the same however many questions it has.

The benchmarks' leaderboards use this average, the paper's code the plain one; both are reported. The interval combines
the subtasks' own intervals (MOVER: Zou & Donner 2008), so a subtask without a single flip still contributes its
uncertainty; subtasks that share videos are correlated as the cluster totals say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from mapflow.results.contract.errors import MapflowError
from mapflow.results.statistics.accuracy import accuracy
from mapflow.results.statistics.findings import Interval, Real, Test
from mapflow.results.statistics.paired_difference import paired_difference
from mapflow.results.statistics.pairing import cluster_sums
from mapflow.results.statistics.sign_flip import cluster_sign_flip


@dataclass(frozen=True)
class MacroDifference:
    """Mean over subtasks of treatment − baseline, and the sign-flip test of just that mean."""

    interval: Interval
    test: Test


def macro_accuracy(
    correct: Bool[np.ndarray, " n"],
    task: Int[np.ndarray, " n"],
    cluster: Int[np.ndarray, " n"] | None = None,
    confidence: Real = 0.95,
) -> Interval:
    """Mean of the subtasks' accuracies."""
    return _mover(
        correct.astype(float),
        task,
        cluster,
        lambda rows, group: accuracy(correct[rows], group, confidence),
    )


def macro_difference(
    difference: Int[np.ndarray, " n"],
    task: Int[np.ndarray, " n"],
    cluster: Int[np.ndarray, " n"] | None = None,
    *,
    confidence: Real = 0.95,
    flips: int = 20_000,
    seed: int = 0,
) -> MacroDifference:
    """Mean of the subtasks' differences. `flips` and `seed` belong to its test (sign_flip.py)."""
    interval = _mover(
        difference,
        task,
        cluster,
        lambda rows, group: paired_difference(difference[rows], group).interval(confidence),
    )
    size = np.bincount(task)
    weight = 1.0 / ((size > 0).sum() * size[task])
    return MacroDifference(
        interval, cluster_sign_flip(difference * weight, cluster, flips=flips, seed=seed).test
    )


def _mover(
    values: Num[np.ndarray, " n"],
    task: Int[np.ndarray, " n"],
    cluster: Int[np.ndarray, " n"] | None,
    interval_of: Callable[[np.ndarray, np.ndarray | None], Interval],
) -> Interval:
    if len(values) == 0:
        raise MapflowError(
            "an average over no subtasks is undefined; check that the runs hold any question"
        )
    parts: list[Interval] = []
    for code in np.unique(task):
        rows = np.flatnonzero(task == code)
        group = None if cluster is None else np.unique(cluster[rows], return_inverse=True)[1]
        parts.append(interval_of(rows, group))
    correlation = np.eye(len(parts)) if cluster is None else _correlation(values, task, cluster)
    estimate = float(np.mean([part.estimate for part in parts]))
    low = estimate - _combined([part.estimate - part.low for part in parts], correlation)
    high = estimate + _combined([part.high - part.estimate for part in parts], correlation)
    method = f"mean of {len(parts)} subtasks' intervals (MOVER)"
    return Interval(estimate, low, high, parts[0].confidence, method)


def _combined(distances: Sequence[float], correlation: Float[np.ndarray, "tasks tasks"]) -> float:
    distance = np.array(distances)
    return float(np.sqrt(max(0.0, distance @ correlation @ distance))) / len(distance)


def _correlation(
    values: Num[np.ndarray, " n"], task: Int[np.ndarray, " n"], cluster: Int[np.ndarray, " n"]
) -> Float[np.ndarray, "tasks tasks"]:
    """Correlation of the subtasks' means through the clusters that they share."""
    columns = []
    for code in np.unique(task):
        inside = task == code
        columns.append(np.where(inside, values - values[inside].mean(), 0.0))
    totals = cluster_sums(np.stack(columns, axis=1), cluster)
    spread = np.sqrt((totals**2).sum(axis=0))
    scaled = totals / np.where(spread > 0, spread, 1.0)
    correlation = scaled.T @ scaled
    np.fill_diagonal(correlation, 1.0)
    return correlation

"""Comparisons by subtask, and averages over subtasks.

- Each subtask's flips, difference and test, with Holm-corrected p-values.
- Homogeneity: is the difference the same in all subtasks? The clusters' residuals from the common
  difference get random weights: a multiplier bootstrap with the null hypothesis imposed (Cameron,
  Gelbach & Miller 2008).
- Mantel-Haenszel: one odds ratio for all subtasks. Its chi-square treats the runs as independent
  samples and so ignores the pairing. Its numerator is the total of the paired differences, so the
  test of the whole comparison is the Mantel-Haenszel test with a null distribution for pairs and
  clusters.
- Macro averages, in which each subtask counts the same, as on the benchmarks' leaderboards (the
  paper reports the plain average). The difference of two macro averages is tested like any other,
  with weights: a question counts 1 / (subtasks × questions of its subtask). So it has a verdict,
  its interval shrinks where nothing varies, and equals that of the plain mean if all subtasks have
  the same size. The interval of one run's macro accuracy combines those of the subtasks (MOVER:
  Zou & Donner 2008). Subtasks that share videos are correlated, as estimated from cluster totals.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Num
from statsmodels.stats.contingency_tables import StratifiedTable

from mapflow.results.contract.errors import MapflowError
from mapflow.results.statistics.accuracy import accuracy
from mapflow.results.statistics.clusters import cluster_sums
from mapflow.results.statistics.cochran import Cells, count_cells
from mapflow.results.statistics.difference import (
    DEFAULT_MARGIN,
    NonInferiority,
    PairedDifference,
    non_inferiority,
    paired_difference,
)
from mapflow.results.statistics.estimates import NEGLIGIBLE, Interval, Real, Test
from mapflow.results.statistics.multiplicity import holm


@dataclass(frozen=True)
class StratumDifference:
    """The comparison of one subtask; `p_holm` is corrected for the number of subtasks."""

    task: str
    cells: Cells
    difference: Interval
    test: Test
    p_holm: float


@dataclass(frozen=True)
class MantelHaenszel:
    """The common odds ratio, treatment against baseline; None if it would be 0 or infinite."""

    odds_ratio: float | None
    low: float | None
    high: float | None
    test: Test


def stratum_differences(
    baseline: Bool[np.ndarray, " n"],
    treatment: Bool[np.ndarray, " n"],
    task: Int[np.ndarray, " n"],
    task_names: Sequence[str],
    cluster: Int[np.ndarray, " n"] | None = None,
    confidence: Real = 0.95,
) -> tuple[StratumDifference, ...]:
    """The comparison of each subtask, in the order of `task_names`.

    task: the code of each question's subtask, an index into `task_names`.
    cluster: the video of each question; None if no two questions share one.

    Raises MapflowError for a subtask without questions.
    """
    difference = treatment.astype(int) - baseline.astype(int)
    found: list[tuple[str, Cells, Interval, Test]] = []
    for code, name in enumerate(task_names):
        rows, group = _subtask(task, code, cluster)
        if len(rows) == 0:
            raise MapflowError(f"subtask {name!r} has no question; leave it out of the comparison")
        cells = count_cells(baseline[rows], treatment[rows])
        counted = paired_difference(difference[rows], group)
        found.append((name, cells, counted.interval(confidence), counted.test()))
    corrected = holm(np.array([test.p_value for *_, test in found]))
    return tuple(StratumDifference(*row, float(p)) for row, p in zip(found, corrected, strict=True))


def _subtask(
    task: Int[np.ndarray, " n"], code: int, cluster: Int[np.ndarray, " n"] | None
) -> tuple[Int[np.ndarray, " own"], Int[np.ndarray, " own"] | None]:
    """The indices of a subtask's questions, and their clusters numbered 0, 1, …"""
    own = np.flatnonzero(task == code)
    return own, None if cluster is None else np.unique(cluster[own], return_inverse=True)[1]


def homogeneity(
    difference: Int[np.ndarray, " n"],
    task: Int[np.ndarray, " n"],
    cluster: Int[np.ndarray, " n"] | None = None,
    *,
    draws: int = 10_000,
    seed: int = 0,
) -> Test:
    """Tests that all subtasks have the same difference.

    The statistic is Σ questions × (subtask's difference − common difference)².
    """
    size = np.bincount(task).astype(float)
    share = size / size.sum()
    residual = difference - difference.mean()
    columns = [np.where(task == code, residual, 0.0) for code in range(len(size))]
    totals = cluster_sums(
        np.stack(columns, axis=1), np.arange(len(task)) if cluster is None else cluster
    )

    def spread(gain: Float[np.ndarray, "draws tasks"]) -> Float[np.ndarray, " draws"]:
        apart = gain - gain.sum(axis=1, keepdims=True) * share
        return (apart**2 / np.where(size > 0, size, 1.0)).sum(axis=1)

    observed = float(spread(totals.sum(axis=0, keepdims=True))[0])
    method = f"homogeneity of {len(size)} subtasks, {draws} draws, seed {seed}"
    # Sums of clusters with independent standard normal weights have this covariance.
    scale, direction = np.linalg.eigh(totals.T @ totals)
    normal = np.random.default_rng(seed).standard_normal((draws, len(size)))
    drawn = spread((normal * np.sqrt(np.maximum(scale, 0.0))) @ direction.T)
    as_far = int((drawn >= observed * (1 - 1e-9)).sum())
    return Test(observed, (1 + as_far) / (1 + draws), method)


def mantel_haenszel(
    baseline: Bool[np.ndarray, " n"],
    treatment: Bool[np.ndarray, " n"],
    task: Int[np.ndarray, " n"],
    confidence: Real = 0.95,
) -> MantelHaenszel:
    """Cochran-Mantel-Haenszel on one table of run × correctness per subtask."""
    n, right = np.bincount(task), np.bincount(task, weights=treatment)
    right_before = np.bincount(task, weights=baseline)
    tables = np.array([[right, n - right], [right_before, n - right_before]])
    return mantel_haenszel_of_tables(tables, confidence)


def mantel_haenszel_of_tables(
    tables: Float[np.ndarray, "2 2 strata"], confidence: Real = 0.95
) -> MantelHaenszel:
    """The same from counts, without continuity correction.

    Strata with a single outcome carry no information and are left out.
    """
    tables = tables[:, :, (tables.sum(axis=0) > 0).all(axis=0)]
    if tables.shape[2] == 0:
        return MantelHaenszel(
            None, None, None, Test(0.0, 1.0, "Mantel-Haenszel (no subtask with both outcomes)")
        )
    found: Any = StratifiedTable(tables)
    null = found.test_null_odds(correction=False)
    method = "Mantel-Haenszel, runs taken as independent"
    test = Test(float(null.statistic), max(float(null.pvalue), NEGLIGIBLE), method)
    if not (tables[0, 0] * tables[1, 1]).any() or not (tables[0, 1] * tables[1, 0]).any():
        return MantelHaenszel(None, None, None, test)
    low, high = found.oddsratio_pooled_confint(alpha=1 - confidence)
    return MantelHaenszel(float(found.oddsratio_pooled), float(low), float(high), test)


@dataclass(frozen=True)
class MacroDifference:
    """The mean over subtasks of treatment − baseline: its interval, test and verdict.

    p_holm: the p-value of `test`, corrected for the comparisons made together.
    """

    interval: Interval
    test: Test
    p_holm: float
    non_inferiority: NonInferiority


def macro_accuracy(
    correct: Bool[np.ndarray, " n"],
    task: Int[np.ndarray, " n"],
    cluster: Int[np.ndarray, " n"] | None = None,
    confidence: Real = 0.95,
) -> Interval:
    """The mean of the subtasks' accuracies."""
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
    margin: Real = DEFAULT_MARGIN,
    confidence: Real = 0.95,
) -> MacroDifference:
    """The mean of the subtasks' differences; `margin` is that of its verdict."""
    counted = paired_difference(difference, cluster, macro_weight(task))
    return macro_of_sums(counted, margin, confidence)


def macro_weight(task: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """The weights, with mean 1, under which a mean over questions is that over subtasks."""
    size = np.bincount(task)
    return len(task) / (np.count_nonzero(size) * size[task])


def macro_of_sums(counted: PairedDifference, margin: Real, confidence: Real) -> MacroDifference:
    """The interval, test and verdict of sums that are weighted by `macro_weight`."""
    test, claim = counted.test(), non_inferiority(counted, margin, confidence)
    return MacroDifference(counted.interval(confidence), test, test.p_value, claim)


def _mover(
    values: Num[np.ndarray, " n"],
    task: Int[np.ndarray, " n"],
    cluster: Int[np.ndarray, " n"] | None,
    interval_of: Callable[[np.ndarray, np.ndarray | None], Interval],
) -> Interval:
    if len(values) == 0:
        raise MapflowError(
            "the average over subtasks of runs without questions is undefined; check the runs"
        )
    parts: list[Interval] = []
    for code in np.unique(task):
        rows, group = _subtask(task, int(code), cluster)
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
    """The correlation of the subtasks' means that shared clusters cause."""
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

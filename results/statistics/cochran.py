"""The paired table of two runs; more runs at once: Cochran's Q, and interactions of two models.

Cochran's Q compares several runs on independent questions. If questions share videos its chi-square
is too large, so cluster totals are tested by Hotelling's T², the multivariate one-sample t-test.

An interaction is a difference of differences: does an intervention cost one model more than
another? Per question it lies between −2 and 2. Half of it is gained or lost in parts, like a mean
over seeds, so it is tested as `difference` tests every mean over questions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Int
from scipy.stats import f
from statsmodels.stats.contingency_tables import cochrans_q

from mapflow.results.contract.errors import MapflowError
from mapflow.results.statistics.clusters import cluster_sums
from mapflow.results.statistics.difference import mean_difference
from mapflow.results.statistics.estimates import NEGLIGIBLE, Interval, Real, Test


@dataclass(frozen=True)
class Cells:
    """The paired 2 × 2 table of a baseline and a treatment.

    both, neither: questions right, or wrong, under both.
    lost: right under the baseline only; gained: right under the treatment only.
    """

    both: int
    lost: int
    gained: int
    neither: int

    @property
    def n(self) -> int:
        return self.both + self.lost + self.gained + self.neither

    @property
    def discordance(self) -> float:
        """The share of questions that are right under exactly one of the runs."""
        return (self.lost + self.gained) / self.n


def count_cells(baseline: Bool[np.ndarray, " n"], treatment: Bool[np.ndarray, " n"]) -> Cells:
    """The paired 2 × 2 table."""
    both, lost = int((baseline & treatment).sum()), int((baseline & ~treatment).sum())
    gained = int((~baseline & treatment).sum())
    return Cells(both, lost, gained, len(baseline) - both - lost - gained)


def cochran_q(
    correct: Bool[np.ndarray, "runs n"], cluster: Int[np.ndarray, " n"] | None = None
) -> Test:
    """Tests that all runs have the same accuracy; p = 1 if they agree on every question.

    Raises MapflowError for fewer than two runs and, if clustered, for too few clusters.
    """
    runs, n = correct.shape
    if runs < 2 or n == 0:
        raise MapflowError(
            f"Cochran's Q needs at least two runs and one question, not {runs} runs over {n}"
        )
    if (correct == correct[0]).all():
        return Test(0.0, 1.0, "Cochran's Q (the runs agree on every question)")
    if cluster is None or np.bincount(cluster).max() == 1:
        found: Any = cochrans_q(correct.T.astype(int))
        return Test(float(found.statistic), max(float(found.pvalue), NEGLIGIBLE), "Cochran's Q")
    return _hotelling(correct, cluster)


def interaction(
    first: Bool[np.ndarray, "2 n"],
    second: Bool[np.ndarray, "2 n"],
    cluster: Int[np.ndarray, " n"] | None = None,
    confidence: Real = 0.95,
) -> tuple[Interval, Test]:
    """The second model's treatment − baseline, minus the first model's, over the same questions.

    first, second: each model's baseline and treatment.
    cluster: the video of each question; None if no two questions share one.

    Raises MapflowError without questions, and if all share one video.
    """
    n = first.shape[1]
    if n == 0:
        raise MapflowError("an interaction without questions is undefined; check the runs")
    if cluster is not None and n > 1 and len(np.unique(cluster)) == 1:
        raise MapflowError(
            f"all {n:,} questions are about one video; an interaction needs several videos"
        )
    before, after = first.astype(int), second.astype(int)
    half = ((after[1] - after[0]) - (before[1] - before[0])) / 2
    counted = mean_difference(np.maximum(half, 0), np.maximum(-half, 0), cluster, 0.0, 0)
    found = counted.interval(confidence)
    doubled = replace(found, estimate=2 * found.estimate, low=2 * found.low, high=2 * found.high)
    return doubled, counted.test()


def _hotelling(correct: Bool[np.ndarray, "runs n"], cluster: Int[np.ndarray, " n"]) -> Test:
    """T² of the clusters' contrasts to the first run, from `q`.

    `q` is the share of the vector of ones that the contrasts explain. This form does not invert an
    estimated covariance, so identical runs, or equal differences in all clusters, need no special
    case.
    """
    contrasts = cluster_sums((correct[1:].astype(float) - correct[0]).T, cluster)[
        np.bincount(cluster) > 0
    ]
    m = len(contrasts)
    basis, strength, _ = np.linalg.svd(contrasts, full_matrices=False)
    basis = basis[:, strength > strength.max() * m * np.finfo(float).eps]
    rank = basis.shape[1]
    if m <= rank + 1:
        raise MapflowError(
            f"{m} clusters are too few to compare {len(correct)} runs at once;"
            " compare them in pairs"
        )
    q = min(1.0, float((basis.sum(axis=0) ** 2).sum() / m))
    ratio = (m - rank) / rank * q / max(1.0 - q, 1e-15)
    return Test(
        ratio,
        max(float(f.sf(ratio, rank, m - rank)), NEGLIGIBLE),
        f"Hotelling T² over {m} clusters (F ratio)",
    )

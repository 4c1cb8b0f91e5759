"""More than two runs at once: do they differ at all?

Cochran's Q for independent questions (statsmodels). Where questions share videos its chi-square is too large, so the
clusters' totals are tested instead: Hotelling's T² on their contrasts, the multivariate one-sample t-test.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Int
from scipy.stats import f
from statsmodels.stats.contingency_tables import cochrans_q

from mapflow.results.contract.errors import MapflowError
from mapflow.results.statistics.findings import NEGLIGIBLE, Test
from mapflow.results.statistics.pairing import cluster_sums


def cochran_q(
    correct: Bool[np.ndarray, "runs n"], cluster: Int[np.ndarray, " n"] | None = None
) -> Test:
    """Test that all runs have the same accuracy; p = 1 where they agree on every question.

    Raises MapflowError for fewer than two runs or, clustered, for too few clusters to tell the runs apart.
    """
    runs, n = correct.shape
    if runs < 2 or n == 0:
        raise MapflowError(
            f"Cochran's Q compares at least two runs over some questions, not {runs} over {n}"
        )
    if (correct == correct[0]).all():
        return Test(0.0, 1.0, "Cochran's Q (the runs agree on every question)")
    if cluster is None or np.bincount(cluster).max() == 1:
        found: Any = cochrans_q(correct.T.astype(int))
        return Test(float(found.statistic), max(float(found.pvalue), NEGLIGIBLE), "Cochran's Q")
    return _hotelling(correct, cluster)


def _hotelling(correct: Bool[np.ndarray, "runs n"], cluster: Int[np.ndarray, " n"]) -> Test:
    """T² of the clusters' net contrasts to the first run, through the share `q` of the vector of ones that they explain.

    This form needs no inverse of an estimated covariance, so runs that agree, or that differ alike in every cluster,
    are no special case.
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
            f"{m} clusters are too few to compare {len(correct)} runs at once; compare them in pairs"
        )
    q = min(1.0, float((basis.sum(axis=0) ** 2).sum() / m))
    ratio = (m - rank) / rank * q / max(1.0 - q, 1e-15)
    return Test(
        ratio,
        max(float(f.sf(ratio, rank, m - rank)), NEGLIGIBLE),
        f"Hotelling T² over {m} clusters (F ratio)",
    )

"""McNemar's exact test: are lost and gained answers equally likely?

Questions right under both runs, or under neither, say nothing about which run is better; of the others half should
go either way. Exact for independent questions; shared videos need sign_flip.py, of which this is the special case
of one question a cluster. The mid-p value corrects the exact test's conservatism (Fagerland, Lydersen & Laake 2013).

More than two runs at once: do they differ at all?

Cochran's Q for independent questions (statsmodels). Where questions share videos its chi-square is too large, so the
clusters' totals are tested instead: Hotelling's T² on their contrasts, the multivariate one-sample t-test.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int
from scipy.stats import binom, f
from statsmodels.stats.contingency_tables import cochrans_q, mcnemar

from mapflow.results.contract.errors import MapflowError
from mapflow.results.statistics.clusters import cluster_sums
from mapflow.results.statistics.estimates import NEGLIGIBLE, Test


@dataclass(frozen=True)
class Cells:
    """All four cells: `lost` are the harmful flips (right → wrong under the treatment), `gained` the beneficial."""

    both: int
    lost: int
    gained: int
    neither: int

    @property
    def n(self) -> int:
        return self.both + self.lost + self.gained + self.neither

    @property
    def discordance(self) -> float:
        """Share of questions that flip."""
        return (self.lost + self.gained) / self.n


def count_cells(baseline: Bool[np.ndarray, " n"], treatment: Bool[np.ndarray, " n"]) -> Cells:
    """The paired 2 × 2 table."""
    both, lost = int((baseline & treatment).sum()), int((baseline & ~treatment).sum())
    gained = int((~baseline & treatment).sum())
    return Cells(both, lost, gained, len(baseline) - both - lost - gained)


def mcnemar_exact(cells: Cells) -> Test:
    """Exact two-sided test; p = 1 where nothing flipped."""
    if cells.lost + cells.gained == 0:
        return Test(0.0, 1.0, "exact McNemar (no discordant pair)")
    table = [[cells.both, cells.lost], [cells.gained, cells.neither]]
    found: Any = mcnemar(table, exact=True)
    return Test(
        float(cells.gained - cells.lost),
        max(min(1.0, float(found.pvalue)), NEGLIGIBLE),
        "exact McNemar",
    )


def mcnemar_mid_p(cells: Cells) -> Test:
    """The exact test less half the probability of the observed split: size near the nominal 5 %, not below it."""
    observed = binom.pmf(cells.lost, cells.lost + cells.gained, 0.5)
    half = 0.5 * observed if cells.lost == cells.gained else observed
    p_value = float(mcnemar_exact(cells).p_value - half)
    return Test(float(cells.gained - cells.lost), max(p_value, NEGLIGIBLE), "mid-p McNemar")


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

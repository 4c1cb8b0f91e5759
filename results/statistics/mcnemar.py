"""McNemar's exact test: are lost and gained answers equally likely?

Questions right under both runs, or under neither, say nothing about which run is better; of the others half should
go either way. Exact for independent questions; shared videos need sign_flip.py, of which this is the special case
of one question a cluster. The mid-p value corrects the exact test's conservatism (Fagerland, Lydersen & Laake 2013).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool
from scipy.stats import binom
from statsmodels.stats.contingency_tables import mcnemar

from mapflow.results.statistics.findings import NEGLIGIBLE, Test


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

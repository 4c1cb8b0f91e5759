"""Which layers matter? Bands and tests that hold for all layers of a sweep at once.

A sweep asks one question a layer, so some layer will look significant by luck. Flipping the signs of whole clusters
keeps the dependence between layers as it is; the largest statistic over layers then has one null distribution
(max-T, Westfall & Young 1993). `p_adjusted` steps down through it, so the chance of naming any layer that does
nothing is at most α, whatever the others do. The bands cover all layers' means at once: critical value from sign flips
of the residuals (wild cluster bootstrap).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from mapflow.results.errors import MapflowError
from mapflow.results.statistics.findings import check_fraction
from mapflow.results.statistics.pairing import cluster_sums


@dataclass(frozen=True)
class SweepBands:
    """One entry a layer (or window), in the units of the input. `significant` controls the family-wise error."""

    mean: Float[np.ndarray, " layers"]
    low: Float[np.ndarray, " layers"]
    high: Float[np.ndarray, " layers"]
    p_adjusted: Float[np.ndarray, " layers"]
    significant: Bool[np.ndarray, " layers"]
    critical_value: float
    confidence: float
    method: str


def simultaneous_bands(
    change: Float[np.ndarray, "n layers"],
    cluster: Int[np.ndarray, " n"] | None = None,
    *,
    confidence: float = 0.95,
    flips: int = 10_000,
    seed: int = 0,
) -> SweepBands:
    """Bands and adjusted p-values for the mean `change` of every layer over questions.

    Raises MapflowError for a change that is not finite (a baseline probability of zero), and for fewer than two
    clusters.
    """
    check_fraction("confidence", confidence)
    broken = np.argwhere(~np.isfinite(change))
    if len(broken):
        row, column = broken[0].tolist()
        raise MapflowError(
            f"question {row + 1}, layer {column + 1}: change {change[row, column]} is not finite ({len(broken)} such in"
            " all); leave out questions whose baseline probability is zero"
        )
    present = np.ones(len(change), bool) if cluster is None else np.bincount(cluster) > 0
    if present.sum() < 2:
        raise MapflowError("a sweep needs questions about at least two videos to tell effect from luck")
    # Units do not matter to the statistics, and squares of tiny numbers must not vanish.
    scale = np.abs(change).max(axis=0)
    unit = change / np.where(scale > 0, scale, 1.0)
    mean = unit.mean(axis=0)
    totals = (unit if cluster is None else cluster_sums(unit, cluster))[present]
    residual = ((unit - mean) if cluster is None else cluster_sums(unit - mean, cluster))[present]
    m = len(totals)

    norm, residual_norm = np.sqrt((totals**2).sum(axis=0)), np.sqrt((residual**2).sum(axis=0))
    observed = np.abs(totals.sum(axis=0)) / np.where(norm > 0, norm, 1.0)
    descending = np.argsort(-observed, kind="stable")
    scaled = totals / np.where(norm > 0, norm, 1.0)
    scaled_residual = residual / np.where(residual_norm > 0, residual_norm, 1.0)

    exceeded, largest = np.zeros(len(mean)), []
    rng = np.random.default_rng(seed)
    rows = max(1, 8_000_000 // m)
    for start in range(0, flips, rows):
        signs = rng.integers(0, 2, size=(min(rows, flips - start), m)).astype(np.float64) * 2 - 1
        flipped = np.abs(signs @ scaled)[:, descending]
        # Step down: the k-th largest statistic competes with the maximum over itself and all smaller ones.
        rivals = np.maximum.accumulate(flipped[:, ::-1], axis=1)[:, ::-1]
        exceeded += (rivals >= observed[descending] - 1e-9).sum(axis=0)
        t_flipped = _as_t(np.abs(signs @ scaled_residual), m)
        largest.append(t_flipped.max(axis=1))
    stepped = np.maximum.accumulate((1 + exceeded) / (1 + flips))
    p_adjusted = np.empty(len(mean))
    p_adjusted[descending] = stepped
    critical = float(np.quantile(np.concatenate(largest), confidence))
    half = critical * np.sqrt(m / (m - 1)) * residual_norm / len(unit)
    method = f"max-T over {len(mean)} layers, {m} clusters, {flips} sign flips, seed {seed}"
    return SweepBands(
        mean * scale,
        (mean - half) * scale,
        (mean + half) * scale,
        p_adjusted,
        p_adjusted <= 1 - confidence + 1e-12,
        critical,
        confidence,
        method,
    )


def _as_t(normalised: Float[np.ndarray, "flips layers"], m: int) -> Float[np.ndarray, "flips layers"]:
    """Σ s·e / |e| as a t-statistic whose variance is re-estimated after each flip, as it was for the data."""
    return normalised * np.sqrt((m - 1) / np.maximum(m - normalised**2, 1e-12))

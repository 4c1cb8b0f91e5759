"""Many comparisons at once: Holm, Benjamini-Hochberg, and simultaneous bands over layers.

Holm is for confirming claims, Benjamini-Hochberg for exploring.

A sweep makes one comparison per layer, so some layers look significant by chance. Redrawing whole
clusters keeps the dependence between layers. The largest statistic over layers has one null
distribution (max-T, Westfall & Young 1993). `p_adjusted` steps down through it, so the probability
of naming any layer without an effect is at most α. The bands cover the means of all layers at once.

Two null distributions are drawn and the less favourable one is used. Cluster sign flips are exact
for symmetric changes. Relative changes of a probability are skewed (−100 % at least, no upper
bound); there, sign flips alone named a false layer in up to 16 % of simulated sweeps. The
studentised cluster bootstrap follows the skew and stays near 5 %.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import false_discovery_control

from mapflow.results.contract.errors import MapflowError
from mapflow.results.statistics.clusters import cluster_sums
from mapflow.results.statistics.estimates import Real, check_fraction


def holm(p_values: Float[np.ndarray, " tests"]) -> Float[np.ndarray, " tests"]:
    """Adjusted p-values (Holm 1979): those ≤ α keep the probability of any false claim ≤ α."""
    _check(p_values)
    # not statsmodels' multipletests: it collects garbage at each call, which takes longer than
    # the comparison of two runs
    ascending = np.argsort(p_values, kind="stable")
    stepped = np.maximum.accumulate(p_values[ascending] * np.arange(len(p_values), 0, -1))
    adjusted = np.empty(len(p_values))
    adjusted[ascending] = np.minimum(1.0, stepped)
    return adjusted


def benjamini_hochberg(p_values: Float[np.ndarray, " tests"]) -> Float[np.ndarray, " tests"]:
    """Adjusted p-values (1995): those ≤ α keep the expected share of false claims ≤ α."""
    _check(p_values)
    return np.asarray(false_discovery_control(p_values)) if len(p_values) else np.empty(0)


def _check(p_values: Float[np.ndarray, " tests"]) -> None:
    outside = ~((p_values >= 0) & (p_values <= 1))
    if outside.any():
        raise MapflowError(f"p-values {p_values[outside].tolist()} are not between 0 and 1")


@dataclass(frozen=True)
class SweepBands:
    """Means over questions with simultaneous bands; one entry per layer, in the units of the input.

    significant: controls the family-wise error at 1 − confidence.
    critical_value: half the width of the bands in standard errors.
    """

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
    confidence: Real = 0.95,
    resamples: int = 5_000,
    seed: int = 0,
    resolution: Real = 0.0,
) -> SweepBands:
    """Bands and adjusted p-values for the mean `change` of every layer over questions.

    cluster: the video of each question; None if no two questions share one.
    resolution: a spread between questions, in the units of `change`, that is added to that of each
        layer in quadrature (the fudge factor of Tusher et al. 2001). Without it, a layer where a
        single question changes has an unbounded bootstrap t and widens the bands of all layers.
        With about 20 videos and rare, large changes, the bands can then be too narrow on the side
        without changes; from 50 videos on they hold.

    Raises MapflowError for a change that is not finite (a baseline probability of zero), and for
    fewer than two clusters.
    """
    check_fraction("confidence", confidence)
    _check_finite(change)
    groups = np.arange(len(change)) if cluster is None else cluster
    size = np.bincount(groups)
    present = size > 0
    m = int(present.sum())
    if m < 2:
        raise MapflowError(
            "a sweep needs questions about at least two videos to separate effects from chance"
        )
    # scaled so that squares of tiny numbers do not vanish
    scale = np.abs(change).max(axis=0, initial=0.0)
    scale[scale == 0] = 1.0
    unit = change / scale
    mean = unit.mean(axis=0)
    residual = cluster_sums(unit - mean, groups)[present]
    totals = residual + mean * size[present, None]

    floor = len(unit) * (resolution / scale) ** 2
    error = np.sqrt(m / (m - 1) * (residual**2).sum(axis=0) + floor) / len(unit)
    nothing_varies = np.where(mean == 0, 0.0, np.inf)
    observed = np.divide(np.abs(mean), error, out=nothing_varies, where=error > 1e-14)
    observed_flip = np.abs(totals.sum(axis=0)) / _norm(totals)
    rng = np.random.default_rng(seed)
    bootstrapped = np.concatenate(list(_bootstrap(residual, size[present], floor, resamples, rng)))
    flipped = np.concatenate(list(_sign_flips(totals, resamples, rng)))
    flipped_residual = _as_t(np.concatenate(list(_sign_flips(residual, resamples, rng))), m)

    p_adjusted = np.maximum(_step_down(observed, bootstrapped), _step_down(observed_flip, flipped))
    critical = max(
        float(np.quantile(drawn.max(axis=1), confidence))
        for drawn in (bootstrapped, flipped_residual)
    )
    method = (
        f"max-T over {len(mean)} layers, {m} clusters,"
        f" {resamples} bootstraps and sign flips, seed {seed}"
    )
    return SweepBands(
        mean * scale,
        (mean - critical * error) * scale,
        (mean + critical * error) * scale,
        p_adjusted,
        p_adjusted <= 1 - confidence + 1e-12,
        critical,
        confidence,
        method,
    )


def _step_down(
    observed: Float[np.ndarray, " layers"], drawn: Float[np.ndarray, "draws layers"]
) -> Float[np.ndarray, " layers"]:
    """Adjusted p-values.

    The k-th largest statistic is compared with the drawn maxima over itself and all smaller ones.
    """
    descending = np.argsort(-observed, kind="stable")
    rivals = np.maximum.accumulate(drawn[:, descending[::-1]], axis=1)[:, ::-1]
    exceeded = (rivals >= observed[descending] * (1 - 1e-9)).sum(axis=0)
    p_values = np.empty(len(observed))
    p_values[descending] = np.maximum.accumulate((1 + exceeded) / (1 + len(drawn)))
    return p_values


def _bootstrap(
    residual: Float[np.ndarray, "clusters layers"],
    size: Int[np.ndarray, " clusters"],
    floor: Float[np.ndarray, " layers"],
    resamples: int,
    rng: np.random.Generator,
) -> Iterator[Float[np.ndarray, "draws layers"]]:
    """|t| of every layer over resampled clusters; 0 if a resample has no variation."""
    m = len(size)
    crossed, squared = residual * size[:, None], residual**2
    for draws in _chunks(resamples, m):
        weight = rng.multinomial(m, np.full(m, 1 / m), size=draws).astype(float)
        mean = (weight @ residual) / (weight @ size)[:, None]
        square = (
            weight @ squared - 2 * mean * (weight @ crossed) + mean**2 * (weight @ size**2)[:, None]
        )
        error = np.sqrt(m / (m - 1) * np.maximum(square, 0.0) + floor) / (weight @ size)[:, None]
        yield np.divide(np.abs(mean), error, out=np.zeros_like(mean), where=error > 1e-14)


def _sign_flips(
    totals: Float[np.ndarray, "clusters layers"], resamples: int, rng: np.random.Generator
) -> Iterator[Float[np.ndarray, "draws layers"]]:
    """|Σ ± total| / |total| of every layer under random signs of the clusters."""
    scaled = totals / _norm(totals)
    for draws in _chunks(resamples, len(totals)):
        yield np.abs((2.0 * rng.integers(0, 2, size=(draws, len(totals))) - 1) @ scaled)


def _chunks(resamples: int, clusters: int) -> Iterator[int]:
    """Numbers of draws that add up to `resamples`, each small enough for memory."""
    rows = max(1, 8_000_000 // clusters)
    for start in range(0, resamples, rows):
        yield min(rows, resamples - start)


def _norm(totals: Float[np.ndarray, "clusters layers"]) -> Float[np.ndarray, " layers"]:
    length = np.sqrt((totals**2).sum(axis=0))
    return np.where(length > 0, length, 1.0)


def _as_t(
    normalised: Float[np.ndarray, "draws layers"], m: int
) -> Float[np.ndarray, "draws layers"]:
    """Σ s·e / |e| as a t-statistic whose variance is estimated again after each flip."""
    return normalised * np.sqrt((m - 1) / np.maximum(m - normalised**2, 1e-12))


def _check_finite(change: Float[np.ndarray, "n layers"]) -> None:
    broken = np.argwhere(~np.isfinite(change))
    if len(broken):
        row, column = broken[0].tolist()
        raise MapflowError(
            f"question {row + 1}, layer {column + 1}: change {change[row, column]} is not finite"
            f" ({len(broken)} such in all); leave out questions whose baseline probability is zero"
        )


def letter_display(differ: Bool[np.ndarray, "runs runs"]) -> list[str]:
    """Compact letter display: two runs share a letter if and only if they do not differ.

    Source: Piepho (2004), the insert-and-absorb algorithm.
    """
    n = len(differ)
    groups = [frozenset(range(n))] if n else []
    for i, j in combinations(range(n), 2):
        if differ[i, j]:
            split = [
                part
                for group in groups
                for part in ([group - {i}, group - {j}] if {i, j} <= group else [group])
            ]
            groups = [
                group for group in dict.fromkeys(split) if not any(group < other for other in split)
            ]
    groups.sort(key=sorted)
    return [
        "".join(_letter(k) for k, group in enumerate(groups) if run in group) for run in range(n)
    ]


def _letter(k: int) -> str:
    return chr(ord("a") + k) if k < 26 else f"({k + 1})"

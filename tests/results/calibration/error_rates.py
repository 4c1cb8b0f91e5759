"""Error rates of the statistics on simulated runs with known truth, in percent.

Used by the slow test with few repetitions and by `draw_calibration.py` with many.
"""

from __future__ import annotations

import numpy as np
from simulated_runs import Design, draw_changes, draw_runs

from mapflow.results.statistics import (
    cluster_bootstrap,
    cluster_sign_flip,
    count_cells,
    macro_difference,
    mcnemar_exact,
    non_inferiority,
    paired_difference,
    simultaneous_bands,
)


def false_positives(design: Design, repetitions: int, seed: int = 0) -> dict[str, float]:
    """Share of p < 0.05 when neither run is better."""
    hits = {"default": 0, "sign-flip, exact p": 0, "McNemar, unclustered": 0}
    for before, after in draw_runs(design, repetitions, seed):
        flipped = cluster_sign_flip(after.astype(int) - before, design.cluster)
        hits["default"] += flipped.test.p_value < 0.05
        hits["sign-flip, exact p"] += flipped.p_exact < 0.05
        hits["McNemar, unclustered"] += mcnemar_exact(count_cells(before, after)).p_value < 0.05
    return _per_cent(hits, repetitions)


def coverage(
    design: Design, repetitions: int, seed: int = 0, *, bootstrap: bool = False
) -> dict[str, float]:
    """Share of 95 % intervals that contain the true difference."""
    hits = {"default": 0, "Tango, unclustered": 0} | ({"cluster bootstrap": 0} if bootstrap else {})
    for before, after in draw_runs(design, repetitions, seed):
        difference = after.astype(int) - before
        intervals = {
            "default": paired_difference(difference, design.cluster).interval(),
            "Tango, unclustered": paired_difference(difference).interval(),
        }
        if bootstrap:
            intervals["cluster bootstrap"] = cluster_bootstrap(
                difference, design.cluster, resamples=2000
            )
        for name, interval in intervals.items():
            hits[name] += interval.low <= design.difference <= interval.high
    return _per_cent(hits, repetitions)


def wrong_verdicts(design: Design, repetitions: int, seed: int = 0) -> dict[str, float]:
    """Share of verdicts "non-inferior" and "inferior" if the true difference is at the margin."""
    hits = {"non-inferior": 0, "inferior": 0, "inconclusive": 0}
    for before, after in draw_runs(design, repetitions, seed):
        counted = paired_difference(after.astype(int) - before, design.cluster)
        hits[non_inferiority(counted, margin=-design.difference).verdict] += 1
    return _per_cent(hits, repetitions)


def macro_errors(design: Design, repetitions: int, seed: int = 0) -> dict[str, float]:
    """Coverage of the macro difference's interval and size of its test, over four subtasks."""
    task = (np.arange(len(design.sizes)) ** 2 % 7 % 4)[design.cluster]
    hits = {"coverage": 0, "false positives": 0}
    for before, after in draw_runs(design, repetitions, seed):
        found = macro_difference(after.astype(int) - before, task, design.cluster, flips=1999)
        hits["coverage"] += found.interval.low <= design.difference <= found.interval.high
        hits["false positives"] += found.test.p_value < 0.05
    return _per_cent(hits, repetitions)


def sweep_errors(
    repetitions: int, seed: int = 0, *, affected: int = 0, resamples: int = 999
) -> dict[str, float]:
    """Family-wise error over layers without effect, and simultaneous coverage of the bands."""
    hits = {"any false layer": 0, "any false layer, uncorrected": 0, "all layers covered": 0}
    for change, cluster in draw_changes(repetitions, seed, affected=affected):
        bands = simultaneous_bands(change, cluster, resamples=resamples)
        truth = np.where(np.arange(change.shape[1]) < affected, -15.0, 0.0)
        alone = [
            simultaneous_bands(change[:, [layer]], cluster, resamples=199)
            for layer in range(affected, len(truth), 3)
        ]
        hits["any false layer"] += bands.significant[affected:].any()
        hits["any false layer, uncorrected"] += any(band.significant[0] for band in alone)
        hits["all layers covered"] += ((bands.low <= truth) & (truth <= bands.high)).all()
    return _per_cent(hits, repetitions)


def _per_cent(hits: dict[str, int], repetitions: int) -> dict[str, float]:
    return {name: 100 * float(hit) / repetitions for name, hit in hits.items()}

"""Counts of errors on simulated runs with known truth; one function per kind of panel."""

from __future__ import annotations

from collections import Counter

import numpy as np
from planning_settings import EXCHANGEABLE, INTERACTION, NO_INTERACTION, POWER, SKEWED
from scipy.stats import binomtest, t
from settings import Setting
from simulated_runs import (
    draw_cells,
    draw_changes,
    draw_models,
    draw_probabilities,
    draw_runs,
    draw_seeds,
    draw_treatments,
)

from mapflow.results.statistics import (
    accuracy,
    clustered_mean,
    interaction,
    judge,
    macro_difference,
    non_inferiority,
    paired_difference,
    seed_condition,
    simultaneous_bands,
)
from mapflow.results.statistics.difference import PairedDifference


def measure(setting: Setting, repetitions: int, rng: np.random.Generator) -> Counter[str]:
    """How often each event happened in `repetitions` simulations; "error" is what is promised."""
    return _MEASURES[setting.panel](setting, repetitions, rng)


def _difference(setting: Setting, repetitions: int, rng: np.random.Generator) -> Counter[str]:
    hits: Counter[str] = Counter()
    shape, values = setting.shape, dict(setting.values)
    true, flips = values.pop("true"), values.pop("flips")
    cluster = shape.cluster if max(shape.sizes) > 1 else None
    for _ in range(repetitions):
        before, after = draw_runs(rng, shape, discordance=flips, difference=true, **values)
        difference = after.astype(int) - before
        found = paired_difference(difference, cluster)
        below, above = found.tails(true)
        if setting.panel == "wrong verdicts at the margin":
            verdict = non_inferiority(found, -true).verdict
            hits["error"] += verdict == "non-inferior"
            hits["inferior"] += verdict == "inferior"
        else:
            hits["error"] += 2 * min(below, above) < 0.05
        hits["too high"] += below < 0.025
        hits["too low"] += above < 0.025
        if true == 0 and cluster is None:
            hits["exact McNemar"] += _exact(found) < 0.05
            hits["robust t"] += _robust_t(difference) < 0.05
        elif true == 0:
            hits["videos ignored"] += paired_difference(difference).p_value() < 0.05
        if true == 0 and cluster is None:  # power, for a difference of half of the flips
            one, other = draw_runs(rng, shape, 0.0, flips, flips / 2)
            apart = other.astype(int) - one
            shifted = paired_difference(apart)
            hits["power"] += shifted.p_value() < 0.05
            hits["power, exact McNemar"] += _exact(shifted) < 0.05
            hits["power, robust t"] += _robust_t(apart) < 0.05
    return hits


def _exact(found: PairedDifference) -> float:
    flips = round(found.gained + found.lost)
    return float(binomtest(round(found.lost), flips).pvalue) if flips else 1.0


def _robust_t(difference: np.ndarray) -> float:
    n, error = len(difference), difference.std(ddof=1)
    return float(2 * t.sf(abs(difference.mean()) / error * n**0.5, n - 1)) if error else 1.0


def _family(setting: Setting, repetitions: int, rng: np.random.Generator) -> Counter[str]:
    hits: Counter[str] = Counter()
    shape, values = setting.shape, setting.values
    cluster = shape.cluster if max(shape.sizes) > 1 else None
    for _ in range(repetitions):
        drawn = draw_treatments(rng, shape, values["correlation"], values["flips"], -0.02, 10)
        found = [paired_difference(one, cluster) for one in drawn]
        alone = [non_inferiority(one) for one in found]
        p_values = [one.p_value() for one in found]
        _, together = judge([one.estimate for one in found], p_values, alone)
        hits["error"] += any(one.verdict == "non-inferior" for one in together)
        hits["any inferior"] += any(one.verdict == "inferior" for one in together)
        hits["uncorrected"] += any(one.verdict == "non-inferior" for one in alone)
    return hits


def _seeds(setting: Setting, repetitions: int, rng: np.random.Generator) -> Counter[str]:
    hits: Counter[str] = Counter()
    shape, values = setting.shape, setting.values
    cluster = shape.cluster if max(shape.sizes) > 1 else None
    for _ in range(repetitions):
        baseline, seeds = draw_seeds(rng, shape, values["seeds"], values["spread"])
        found = seed_condition(baseline, seeds, cluster)
        hits["error"] += found.test.p_value < 0.05
        hits["width, hundredths of a point"] += round(
            1e4 * (found.difference.high - found.difference.low)
        )
    return hits


def _macro(setting: Setting, repetitions: int, rng: np.random.Generator) -> Counter[str]:
    hits: Counter[str] = Counter()
    shape, values = setting.shape, setting.values
    true, task = values["true"], shape.task
    cluster = shape.cluster if max(shape.sizes) > 1 else None
    for _ in range(repetitions):
        before, after = draw_runs(rng, shape, values["correlation"], values["flips"], true)
        difference = after.astype(int) - before
        macro, micro = (
            macro_difference(difference, task, cluster),
            paired_difference(difference, cluster),
        )
        hits["error"] += not macro.interval.low <= true <= macro.interval.high
        plain = micro.interval()
        hits["micro error"] += not plain.low <= true <= plain.high
        hits["width, hundredths of a point"] += round(
            1e4 * (macro.interval.high - macro.interval.low)
        )
        hits["micro width, hundredths of a point"] += round(1e4 * (plain.high - plain.low))
        hits["non-inferior"] += macro.non_inferiority.verdict == "non-inferior"
        hits["micro non-inferior"] += plain.low > -0.02
    return hits


def _accuracy(setting: Setting, repetitions: int, rng: np.random.Generator) -> Counter[str]:
    hits: Counter[str] = Counter()
    shape, values = setting.shape, setting.values
    shares = np.array([values["share"], 1 - values["share"], 0.0, 0.0])
    if values["how"] == "drawn":
        shares = np.maximum(shares, 1e-9)
    for _ in range(repetitions):
        cell = draw_cells(rng, shape, shares, values["correlation"], values["how"])
        found = accuracy(cell == 0, shape.cluster)
        hits["error"] += not found.low <= values["share"] <= found.high
    return hits


def _sweep(setting: Setting, repetitions: int, rng: np.random.Generator) -> Counter[str]:
    """Family-wise error over layers without effect, and simultaneous coverage of the bands."""
    hits: Counter[str] = Counter()
    affected = setting.values["affected"]
    for change, cluster in draw_changes(repetitions, int(rng.integers(2**31)), affected=affected):
        bands = simultaneous_bands(change, cluster, resamples=999)
        truth = np.where(np.arange(change.shape[1]) < affected, -15.0, 0.0)
        alone = [
            simultaneous_bands(change[:, [layer]], cluster, resamples=199)
            for layer in range(affected, len(truth), 3)
        ]
        hits["error"] += bool(bands.significant[affected:].any())
        hits["uncorrected"] += any(band.significant[0] for band in alone)
        hits["all layers covered"] += bool(((bands.low <= truth) & (truth <= bands.high)).all())
    return hits


def _probability(setting: Setting, repetitions: int, rng: np.random.Generator) -> Counter[str]:
    hits: Counter[str] = Counter()
    shape, skewed = setting.shape, setting.panel == SKEWED
    cluster = shape.cluster if max(shape.sizes) > 1 else None
    for _ in range(repetitions):
        change = draw_probabilities(rng, shape, setting.values["correlation"], skewed)
        found = clustered_mean(change, cluster)
        hits["no test"] += found is None
        hits["error"] += found is not None and found[1].p_value < 0.05
    return hits


def _interaction(setting: Setting, repetitions: int, rng: np.random.Generator) -> Counter[str]:
    """Intervals that miss the true difference of differences, p-values below 0.05, robust t."""
    hits: Counter[str] = Counter()
    shape, values = setting.shape, setting.values
    own, other = (
        flips * (1 - 2 * losses)
        for flips, losses in zip(values["flips"], values["losses"], strict=True)
    )
    true = other - own
    cluster = shape.cluster if max(shape.sizes) > 1 else None
    for _ in range(repetitions):
        first, second = draw_models(
            rng, shape, values["correlation"], values["flips"], values["losses"]
        )
        interval, test = interaction(first, second, cluster)
        hits["significant"] += test.p_value < 0.05
        missed = not interval.low <= true <= interval.high
        hits["error"] += test.p_value < 0.05 if setting.panel == NO_INTERACTION else missed
        change = (second[1].astype(float) - second[0]) - (first[1].astype(float) - first[0])
        robust = clustered_mean(change - true, cluster)
        hits["robust t"] += robust is not None and robust[1].p_value < 0.05
    return hits


def _power(setting: Setting, repetitions: int, rng: np.random.Generator) -> Counter[str]:
    hits: Counter[str] = Counter()
    shape, values = setting.shape, setting.values
    cluster = shape.cluster if max(shape.sizes) > 1 else None
    for _ in range(repetitions):
        before, after = draw_runs(
            rng, shape, values["correlation"], values["flips"], values["true"]
        )
        found = paired_difference(after.astype(int) - before, cluster)
        hits["non-inferior"] += non_inferiority(found).verdict == "non-inferior"
        hits["different"] += found.p_value() < 0.05
    return hits


_MEASURES = {
    "false positives, no difference": _difference,
    "intervals that miss the true difference": _difference,
    "wrong verdicts at the margin": _difference,
    "ten treatments at the margin": _family,
    "several seeds as one condition": _seeds,
    "macro average over subtasks": _macro,
    "intervals of an accuracy that miss it": _accuracy,
    "any false layer in a sweep": _sweep,
    EXCHANGEABLE: _probability,
    SKEWED: _probability,
    NO_INTERACTION: _interaction,
    INTERACTION: _interaction,
    POWER: _power,
}

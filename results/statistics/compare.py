"""The whole comparison of two runs, and its result in one sentence.

`compare_runs` chooses the methods: Tango's interval and McNemar's test if every question has its
own video, otherwise their clustered counterparts. Every result names its method. The order of the
questions does not matter, and the same input and seed give the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass

from mapflow.results.contract.errors import MapflowError
from mapflow.results.statistics.accuracy import accuracy
from mapflow.results.statistics.difference import (
    DEFAULT_MARGIN,
    Equivalence,
    NonInferiority,
    equivalence,
    non_inferiority,
    paired_difference,
)
from mapflow.results.statistics.estimates import Interval, Real, Test, check_fraction
from mapflow.results.statistics.mcnemar import Cells, count_cells, mcnemar_exact
from mapflow.results.statistics.pairing import PairedRuns, RunOutcomes, pair
from mapflow.results.statistics.resampling import cluster_bootstrap, cluster_sign_flip
from mapflow.results.statistics.subtasks import (
    MacroDifference,
    MantelHaenszel,
    StratumDifference,
    homogeneity,
    macro_difference,
    mantel_haenszel,
    stratum_differences,
)

FEW_CLUSTERS = 20
"""Videos below which intervals by cluster are approximate."""
FEW_FLIPS = 10
"""Videos with a changed score below which a note warns the reader."""


@dataclass(frozen=True)
class Strata:
    """The comparison by subtask."""

    differences: tuple[StratumDifference, ...]
    macro: MacroDifference
    homogeneity: Test
    mantel_haenszel: MantelHaenszel


@dataclass(frozen=True)
class Comparison:
    """Treatment − baseline over the questions that both runs answered, as fractions.

    left_out: questions of the baseline and the treatment that the other run lacks.
    difference, test: the default interval and the default test.
    p_holm: the p-value of `test`, corrected for the comparisons made together (by the tables).
    mcnemar: ignores shared videos; bootstrap: None if no video is shared.
    strata: None with fewer than two subtasks.
    notes: sentences for the reader.
    """

    baseline: str
    treatment: str
    n: int
    n_clusters: int
    left_out: tuple[int, int]
    cells: Cells
    baseline_accuracy: Interval
    treatment_accuracy: Interval
    difference: Interval
    design_effect: float
    test: Test
    p_holm: float
    mcnemar: Test
    bootstrap: Interval | None
    non_inferiority: NonInferiority
    equivalence: Equivalence
    strata: Strata | None
    notes: tuple[str, ...]


def compare_runs(
    baseline: RunOutcomes,
    treatment: RunOutcomes,
    *,
    margin: Real = DEFAULT_MARGIN,
    confidence: Real = 0.95,
    intersect: bool = False,
    resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Compares two runs over the same questions.

    margin: the loss that still counts as non-inferior, as a fraction.
    intersect: as in `pair`.
    resamples, seed: for everything that is drawn at random.

    Raises MapflowError as `pair`, and if all questions share one video.
    """
    paired = pair([baseline, treatment], intersect=intersect)
    check_fraction("margin", margin)
    check_fraction("confidence", confidence)
    if paired.n_clusters == 1 and paired.n > 1:
        raise MapflowError(
            f"all {paired.n} questions are about one video; compare runs over several videos, or"
            " leave out video ids to treat the questions as independent"
        )
    before, after = paired.correct
    difference = after.astype(int) - before
    cluster = paired.cluster if paired.clustered else None
    cells = count_cells(before, after)
    counted = paired_difference(difference, cluster)
    flipped = cluster_sign_flip(difference, cluster)
    mcnemar = mcnemar_exact(cells)
    bootstrap = None
    if cluster is not None:
        bootstrap = cluster_bootstrap(
            difference, cluster, confidence=confidence, resamples=resamples, seed=seed
        )
    strata = None
    if paired.task is not None and len(paired.task_names) > 1:
        strata = Strata(
            stratum_differences(before, after, paired.task, paired.task_names, cluster, confidence),
            macro_difference(
                difference, paired.task, cluster, confidence=confidence, flips=resamples, seed=seed
            ),
            homogeneity(difference, paired.task, cluster, draws=resamples, seed=seed),
            mantel_haenszel(before, after, paired.task, confidence),
        )
    test = mcnemar if cluster is None else flipped.test
    return Comparison(
        baseline=paired.names[0],
        treatment=paired.names[1],
        n=paired.n,
        n_clusters=paired.n_clusters,
        left_out=(paired.left_out[0], paired.left_out[1]),
        cells=cells,
        baseline_accuracy=accuracy(before, cluster, confidence),
        treatment_accuracy=accuracy(after, cluster, confidence),
        difference=counted.interval(confidence),
        design_effect=counted.design_effect,
        test=test,
        p_holm=test.p_value,
        mcnemar=mcnemar,
        bootstrap=bootstrap,
        non_inferiority=non_inferiority(counted, margin, confidence),
        equivalence=equivalence(counted, margin),
        strata=strata,
        notes=_notes(paired, cells, flipped.informative),
    )


def _notes(paired: PairedRuns, cells: Cells, informative: int) -> tuple[str, ...]:
    notes = []
    if any(paired.left_out):
        left = " and ".join(
            f"{n} of {name}" for name, n in zip(paired.names, paired.left_out, strict=True)
        )
        notes.append(
            f"Only the {paired.n} questions that both runs answered are compared; left out: {left}."
        )
    if paired.clustered and paired.n_clusters < FEW_CLUSTERS:
        notes.append(
            f"Only {paired.n_clusters} videos: intervals by cluster are approximate below"
            f" {FEW_CLUSTERS}."
        )
    if cells.gained + cells.lost == 0:
        notes.append("No question changed between the runs.")
    elif informative < FEW_FLIPS:
        notes.append(
            f"Only {informative} videos changed their score, so little can be said either way."
        )
    return tuple(notes)


def sentence(comparison: Comparison, benchmark: str | None = None) -> str:
    """The verdict, the difference and the flips in one sentence, in points (hundredths).

    For example: "effective is non-inferior to full on TVBench: −0.3 points, 95 % CI −1.5…+0.9,
    margin 2; 127 lost, 119 gained".
    """
    where = f" on {benchmark}" if benchmark else ""
    treatment, baseline = comparison.treatment, comparison.baseline
    verdict = {
        "non-inferior": f"{treatment} is non-inferior to {baseline}{where}",
        "inferior": f"{treatment} is inferior to {baseline}{where}",
        "inconclusive": f"it is inconclusive whether {treatment} is inferior to {baseline}{where}",
    }[comparison.non_inferiority.verdict]
    difference, cells = comparison.difference, comparison.cells
    margin = comparison.non_inferiority.margin * 100
    return (
        f"{verdict}: {points(difference.estimate)} points, {difference.confidence * 100:g} % CI"
        f" {points(difference.low)}…{points(difference.high)}, margin {margin:g};"
        f" {cells.lost:,} lost, {cells.gained:,} gained"
    )


def points(fraction: float) -> str:
    """A difference in points with its sign: "−0.3", "+0.7", "0.0"."""
    rounded = round(fraction * 100, 1)
    sign = "−" if rounded < 0 else "+" if rounded > 0 else ""
    return f"{sign}{abs(rounded):.1f}"

"""The whole comparison of two runs, and its result in one sentence.

`compare_runs` tests one difference in one way, whether questions share videos or not, and
`judge_together` corrects the claims of all comparisons that are made at once. The order of the
questions does not matter, and the same input and seed give the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.stats import norm

from mapflow.results.contract.errors import MapflowError
from mapflow.results.statistics.accuracy import accuracy
from mapflow.results.statistics.clusters import cluster_bootstrap, cluster_sums
from mapflow.results.statistics.cochran import Cells, count_cells
from mapflow.results.statistics.difference import (
    DEFAULT_MARGIN,
    Equivalence,
    NonInferiority,
    Verdict,
    equivalence,
    judged_together,
    non_inferiority,
    paired_difference,
)
from mapflow.results.statistics.estimates import (
    Interval,
    Real,
    Test,
    check_fraction,
    count,
    points,
)
from mapflow.results.statistics.multiplicity import holm
from mapflow.results.statistics.pairing import RunOutcomes, pair
from mapflow.results.statistics.power import detectable_difference
from mapflow.results.statistics.subtasks import (
    MacroDifference,
    MantelHaenszel,
    StratumDifference,
    homogeneity,
    macro_difference,
    mantel_haenszel,
    stratum_differences,
)

FEW_CLUSTERS = 45
"""Videos below which a note says how far intervals by cluster can be trusted."""
FEW_FLIPS = 10
"""Videos with a changed score below which a note warns the reader."""
ALPHA = 0.05
Direction = Literal["better", "worse", ""]


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
    changed_clusters: videos with a question that was lost or gained.
    difference, test: the test, and the interval that inverts it.
    p_holm: the p-value of `test`, corrected for the comparisons made together; the verdict in
        `non_inferiority` is corrected likewise (`judge_together`).
    bootstrap: None if no video is shared.
    strata: None with fewer than two subtasks.
    """

    baseline: str
    treatment: str
    n: int
    n_clusters: int
    left_out: tuple[int, int]
    changed_clusters: int
    cells: Cells
    baseline_accuracy: Interval
    treatment_accuracy: Interval
    difference: Interval
    design_effect: float
    test: Test
    p_holm: float
    bootstrap: Interval | None
    non_inferiority: NonInferiority
    equivalence: Equivalence
    strata: Strata | None

    @property
    def direction(self) -> Direction:
        """Whether the treatment is significantly better or worse, after correction."""
        return direction(self.difference.estimate, self.p_holm, self.non_inferiority.verdict)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the reader, none of which contradicts the verdict."""
        notes = []
        if any(self.left_out):
            names = (self.baseline, self.treatment)
            left = " and ".join(
                f"{n:,} of {name}" for name, n in zip(names, self.left_out, strict=True) if n
            )
            both = "the one question" if self.n == 1 else f"the {self.n:,} questions"
            verb = "is" if self.n == 1 else "are"
            notes.append(f"Only {both} that both runs answered {verb} compared; left out: {left}.")
        clustered = self.n_clusters < self.n
        if clustered and self.n_clusters < FEW_CLUSTERS:
            notes.append(few_videos(self.n_clusters))
        open_verdict = self.non_inferiority.verdict == "inconclusive" and not self.direction
        if self.cells.gained + self.cells.lost == 0:
            notes.append("No question changed between the runs.")
        elif self.changed_clusters < FEW_FLIPS and (open_verdict or clustered):
            changed = count(self.changed_clusters, "video" if clustered else "question")
            changed = f"questions of {changed}" if clustered else changed
            said = "its" if changed == "1 question" else "their"
            so = (
                "so little can be said either way."
                if open_verdict
                else "and the interval assumes that other videos would not change as a whole."
            )
            notes.append(f"Only {changed} changed {said} score, {so}")
        if self.non_inferiority.verdict == "inconclusive":
            notes.append(found_with_power(self.detectable))
        return tuple(notes)

    @property
    def detectable(self) -> float | None:
        """The true difference that these questions, flips and videos find with 80 % power.

        None if they would find none.
        """
        effect = max(self.design_effect, 1.0)
        return detectable_difference(self.n, self.cells.discordance, design_effect=effect)


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
    resamples, seed: for the bootstrap and the test of homogeneity, which draw at random.

    Raises MapflowError as `pair`, and if all questions share one video.
    """
    paired = pair([baseline, treatment], intersect=intersect)
    check_fraction("margin", margin)
    check_fraction("confidence", confidence)
    if paired.n_clusters == 1 and paired.n > 1:
        raise MapflowError(
            f"all {paired.n:,} questions are about one video; compare runs over several videos, or"
            " leave out video ids to treat the questions as independent"
        )
    before, after = paired.correct
    difference = after.astype(int) - before
    cluster = paired.cluster if paired.clustered else None
    counted = paired_difference(difference, cluster)
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
                difference, paired.task, cluster, margin=margin, confidence=confidence
            ),
            homogeneity(difference, paired.task, cluster, draws=resamples, seed=seed),
            mantel_haenszel(before, after, paired.task, confidence),
        )
    test = counted.test()
    found = Comparison(
        baseline=paired.names[0],
        treatment=paired.names[1],
        n=paired.n,
        n_clusters=paired.n_clusters,
        left_out=(paired.left_out[0], paired.left_out[1]),
        changed_clusters=int(np.count_nonzero(cluster_sums(abs(difference), paired.cluster))),
        cells=count_cells(before, after),
        baseline_accuracy=accuracy(before, cluster, confidence),
        treatment_accuracy=accuracy(after, cluster, confidence),
        difference=counted.interval(confidence),
        design_effect=counted.design_effect(counted.estimate),
        test=test,
        p_holm=test.p_value,
        bootstrap=bootstrap,
        non_inferiority=non_inferiority(counted, margin, confidence),
        equivalence=equivalence(counted, margin),
        strata=strata,
    )
    return judge_together([found])[0]


def judge_together(found: Sequence[Comparison]) -> list[Comparison]:
    """The same comparisons as one family: p-values and verdicts corrected for their number (Holm).

    Macro averages are a family of their own: those of all comparisons with subtasks.
    """
    p_holm, claims = judge(
        [one.difference.estimate for one in found],
        [one.test.p_value for one in found],
        [one.non_inferiority for one in found],
    )
    same = holm(np.array([one.equivalence.p_value for one in found]))
    macros = judge_macros([one.strata.macro if one.strata else None for one in found])
    return [
        replace(
            one,
            p_holm=p,
            non_inferiority=claim,
            equivalence=replace(one.equivalence, equivalent=bool(equal < one.equivalence.alpha)),
            strata=replace(one.strata, macro=macro) if one.strata and macro else None,
        )
        for one, p, claim, equal, macro in zip(found, p_holm, claims, same, macros, strict=True)
    ]


def judge_macros(macros: Sequence[MacroDifference | None]) -> list[MacroDifference | None]:
    """Macro averages as one family; None for a comparison without subtasks, which counts not."""
    known = [macro for macro in macros if macro]
    judged = zip(
        known,
        *judge(
            [macro.interval.estimate for macro in known],
            [macro.test.p_value for macro in known],
            [macro.non_inferiority for macro in known],
        ),
        strict=True,
    )
    corrected = iter([replace(one, p_holm=p, non_inferiority=claim) for one, p, claim in judged])
    return [next(corrected) if macro else None for macro in macros]


def judge(
    estimates: Sequence[float], p_values: Sequence[float], claims: Sequence[NonInferiority]
) -> tuple[list[float], list[NonInferiority]]:
    """Corrected p-values and verdicts of one family of differences."""
    p_holm = holm(np.array(p_values, dtype=float)).tolist()
    better = [estimate > 0 and p < ALPHA for estimate, p in zip(estimates, p_holm, strict=True)]
    return p_holm, judged_together(claims, better)


def direction(estimate: float, p_holm: float, verdict: Verdict) -> Direction:
    """Whether a difference is significant, and which way; what is inferior is worse."""
    if verdict == "inferior":
        return "worse"
    if p_holm >= ALPHA or estimate == 0:
        return ""
    return "better" if estimate > 0 else "worse"


def few_videos(videos: int) -> str:
    """The note for intervals over few videos."""
    return (
        f"Only {count(videos, 'video')}: intervals allow for that, but hold less well where nearly"
        " all or nearly no answers are right or changed."
    )


def detectable(interval: Interval) -> str:
    """For an open verdict: the true difference that is found with 80 % power.

    From the width of the interval: for macro averages and several seeds, where no share of flips
    tells it (`Comparison.detectable`).
    """
    z = norm.isf((1 - interval.confidence) / 2)
    return found_with_power((interval.high - interval.low) / 2 * (1 + norm.isf(0.2) / z))


def found_with_power(found: float | None) -> str:
    """The sentence about the difference that is found with 80 % power; None for no difference."""
    if found is None or found >= 1:
        return "With so few questions, no change would have been found with 80 % power."
    return f"A change of {100 * found:.1f} points would have been found with 80 % power."


def sentence(comparison: Comparison, benchmark: str | None = None) -> str:
    """The verdict, the difference and the flips in one sentence, in points (hundredths).

    For example: "effective is non-inferior to full on TVBench: −0.3 points, 95 % CI −1.5…+0.9,
    margin 2; 127 lost, 119 gained".
    """
    cells = comparison.cells
    said = claim(
        comparison.treatment,
        comparison.baseline + (f" on {benchmark}" if benchmark else ""),
        comparison.difference,
        comparison.p_holm,
        comparison.non_inferiority,
    )
    return f"{said}; {cells.lost:,} lost, {cells.gained:,} gained"


def claim(
    treatment: str,
    baseline: str,
    difference: Interval,
    p_holm: float,
    against: NonInferiority,
) -> str:
    """The strongest claim that holds after correction, with the difference and its interval."""
    verdict = against.verdict
    margin = f"{against.margin * 100:g} point{'s' * (against.margin != 0.01)}"
    way = direction(difference.estimate, p_holm, verdict)
    if way == "better":
        said = f"{treatment} is significantly better than {baseline}"
    elif way == "worse":
        beyond = {
            "inferior": f", and inferior at a margin of {margin}",
            "non-inferior": f", but non-inferior at a margin of {margin}",
            "inconclusive": f"; whether by more than a margin of {margin} is inconclusive",
        }[verdict]
        said = f"{treatment} is significantly worse than {baseline}{beyond}"
    elif verdict == "non-inferior":
        said = f"{treatment} is non-inferior to {baseline}"
    else:
        said = f"it is inconclusive whether {treatment} is inferior to {baseline}"
    numbers = (
        f"{points(difference.estimate)} points, {difference.confidence * 100:g} % CI"
        f" {points(difference.low)}…{points(difference.high)}"
    )
    said += f": {numbers}" if way else f": {numbers}, margin {against.margin * 100:g}"
    alone = difference.low > -against.margin or difference.high < -against.margin
    if verdict == "inconclusive" and alone and against.family > 1:
        said += f" (inconclusive as one of {against.family} comparisons)"
    elif not way and not difference.low <= 0 <= difference.high and against.family > 1:
        said += f" (not significant as one of {against.family} comparisons)"
    return said

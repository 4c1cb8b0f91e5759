"""Treatment − baseline over the same questions: one test, and the interval that inverts it.

The hypothesis "the difference is δ" is tested with the restricted probabilities of a lost and a
gained question of Tango (1998), fitted under the hypothesis. The p-value is the mid-p value of the
net gain under them, the "estimated p-value" of Lloyd (2008). So it uses variance *and* skew under
the hypothesis, which matters with few changed questions. It is computed by the saddlepoint formula
of Barndorff-Nielsen, in which a step of the lattice is smoothed uniformly: the smoothed tail is the
mid-p value. Without any changed question it is exact.

Clustered counts are divided by a design effect, which is taken under the hypothesis too: squared
cluster totals of (difference − δ) over squared differences − δ. At δ = 0, unchanged questions drop
out, so it does not matter whose videos they share (Durkalski et al. 2003). With clusters of one it
is 1. Variance under the hypothesis also keeps the level with few clusters, where the variance at
the estimate is too small.

Weights make a subtask count as much as another: `subtasks.macro_difference` is the same test.

The interval holds all δ with p ≥ 1 − confidence, so p < 0.05 exactly if the 95 % interval excludes
0, and the verdict of non-inferiority is the interval's against −margin. A p-value above 0.05 is not
evidence of equality. All above −margin is *non-inferior*, all below is *inferior*, else
*inconclusive*; each claim is wrong in at most 2.5 % of cases at the margin (as in ICH E9).
*Equivalence* is claimed by two one-sided tests (Schuirmann 1987).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, Num
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtri_exp, stdtrit

from mapflow.results.contract.errors import MapflowError
from mapflow.results.statistics.clusters import cluster_sums
from mapflow.results.statistics.estimates import NEGLIGIBLE, Interval, Real, Test, check_fraction
from mapflow.results.statistics.mid_p import mid_p_score, restricted_loss
from mapflow.results.statistics.multiplicity import holm

Verdict = Literal["non-inferior", "inferior", "inconclusive"]
DEFAULT_MARGIN = 0.02
STEPS = 64
"""Points on each side at which limits are looked for before they are refined."""
MANY = 100
"""Videos, weighted by their questions, above which the score always grows with the distance."""


@dataclass(frozen=True)
class PairedDifference:
    """All that the test needs of two runs: six sums, and what seeds add.

    gained, lost: questions right under the treatment, or the baseline, only; n: all questions. All
        three are sums of weights (1 per question in a plain mean) and may be fractional.
    squares, crossed, sizes: sums over clusters of (net gain)², net gain × size, and size²; own: the
        same sums over single questions.
    seed_variance, seed_freedom: variance of the mean between seeds and its degrees of freedom, if
        the treatment is the mean of several seeds (`seeds.seed_condition`).
    """

    gained: float
    lost: float
    n: float
    squares: float
    crossed: float
    sizes: float
    own: tuple[float, float, float]
    seed_variance: float = 0.0
    seed_freedom: int = 0

    @classmethod
    def of_counts(
        cls, gained: Real, lost: Real, n: Real, design_effect: Real = 1.0
    ) -> PairedDifference:
        """From counts alone, with a design effect that is given instead of estimated.

        Raises MapflowError for counts that are not a paired table.
        """
        if not (gained >= 0 and lost >= 0 and n > 0 and gained + lost <= n * (1 + 1e-12)):
            raise MapflowError(
                f"{gained:g} gained and {lost:g} lost of {n:g} questions are not a paired table"
            )
        own, k = (gained + lost, gained - lost, n), design_effect
        return cls(gained, lost, n, k * own[0], k * own[1], k * own[2], own)

    @property
    def estimate(self) -> float:
        return (self.gained - self.lost) / self.n

    def design_effect(self, difference: Real) -> float:
        """The variance by cluster over that of independent questions, around `difference`.

        At least that of the same questions in clusters of one, so a video in which a loss and a
        gain cancel does not count as certainty.
        """
        apart = (
            self.gained * (1 - difference) ** 2
            + self.lost * (1 + difference) ** 2
            + max(self.n - self.gained - self.lost, 0.0) * difference**2
        )
        if apart <= 1e-14 * self.n:  # nothing varies: the questions of a cluster count as one
            return self.sizes / self.n
        sums = ((self.squares, self.crossed, self.sizes), self.own)
        by_cluster = max(
            squares - 2 * difference * crossed + difference**2 * sizes
            for squares, crossed, sizes in sums
        )
        return max(by_cluster / apart, 1e-9)

    def score(self, difference: Real) -> float:
        """A standard normal value if the true difference is `difference`; decreasing in it.

        With few or very unequal clusters, differences further away can fit better again. Then
        nearer ones are not rejected either: the score is the smallest from there on.
        """
        found, reach = self._score_at(difference), abs(difference - self.estimate)
        if self._monotone:
            return found
        beyond = [one for one in self._way(difference) if abs(one - self.estimate) > reach]
        return min([found, *map(self._score_at, beyond)], key=abs)

    @property
    def _monotone(self) -> bool:
        """Whether there are enough videos for the score to grow with the distance everywhere."""
        return self.n**2 > MANY * self.sizes

    def _way(self, towards: Real) -> list[float]:
        """Points from the estimate to −1 or 1, closer to each other near the estimate."""
        estimate = self.estimate
        bound = (1.0 if towards > estimate else -1.0) * (1 - 1e-12)
        return [estimate + (bound - estimate) * (k / STEPS) ** 3 for k in range(1, STEPS + 1)]

    def _score_at(self, difference: Real) -> float:
        score = self._score_of_questions(difference)
        distance = self.estimate - difference
        if self.seed_variance == 0 or distance == 0 or score * distance <= 0:
            return score if self.seed_variance == 0 else 0.0
        return math.copysign(_with_seeds(abs(score), distance, self), score)

    def _score_of_questions(self, difference: Real) -> float:
        if difference < 0:
            mirrored = replace(
                self,
                gained=self.lost,
                lost=self.gained,
                crossed=-self.crossed,
                own=(self.own[0], -self.own[1], self.own[2]),
            )
            return -mirrored._score_of_questions(-difference)
        if difference >= 1:
            return 0.0 if self.estimate == difference else -math.inf
        effect = self.design_effect(difference)
        n, gained, lost = self.n / effect, self.gained / effect, self.lost / effect
        if gained + lost == 0:  # exact: half the probability that no question changes
            return float(ndtri_exp(math.log(0.5) + n * math.log1p(-difference)))
        loss = min(max(restricted_loss(gained, lost, n, difference), 0.0), 1.0)
        return mid_p_score(n, min(loss + difference, 1.0), loss, gained - lost)

    def tails(self, difference: Real) -> tuple[float, float]:
        """One-sided p-values of "at most `difference`" and "at least `difference`"."""
        score = self.score(difference)
        return math.exp(log_ndtr(-score)), math.exp(log_ndtr(score))

    def p_value(self, difference: Real = 0.0) -> float:
        """The two-sided p-value of the hypothesis that the true difference is `difference`."""
        return min(1.0, max(2 * min(self.tails(difference)), NEGLIGIBLE))

    def test(self) -> Test:
        """The test of no difference."""
        return Test(self.score(0.0), self.p_value(), f"{self._method}, mid-p")

    def interval(self, confidence: Real = 0.95) -> Interval:
        """The differences around the estimate that the test does not reject."""
        check_fraction("confidence", confidence)
        z = -float(ndtri_exp(math.log((1 - confidence) / 2)))
        low, high = self._limit(-1.0, z), self._limit(1.0, -z)
        return Interval(self.estimate, low, high, confidence, self._method)

    @property
    def _method(self) -> str:
        effect = self.design_effect(self.estimate)
        parts = [] if abs(effect - 1) < 1e-9 else [f"design effect {effect:.2f}"]
        parts += [f"{self.seed_freedom + 1} seeds"] if self.seed_freedom else []
        return ", ".join(["score test", *parts])

    def _limit(self, bound: float, target: float) -> float:
        """The last difference on the way to `bound` that is not rejected."""
        if abs(self.estimate - bound) < 1e-12:
            return bound
        way = [self.estimate, *self._way(bound)]

        def accepted(k: int) -> bool:
            return (self._score_at(way[k]) - target) * target < 0

        steps = range(1, len(way))
        if self._monotone:
            last = next((k - 1 for k in steps if not accepted(k)), len(way) - 1)
        else:
            last = next((k for k in reversed(steps) if accepted(k)), 0)
        if last == len(way) - 1 or not accepted(last):
            return bound if last else self.estimate
        ends = way[last : last + 2]
        return float(brentq(lambda one: self._score_at(one) - target, *ends, xtol=1e-13))


def paired_difference(
    difference: Num[np.ndarray, " n"],
    cluster: Int[np.ndarray, " n"] | None = None,
    weight: Float[np.ndarray, " n"] | None = None,
) -> PairedDifference:
    """The sums of the test.

    difference: treatment − baseline of each question: −1, 0 or 1.
    cluster: the video of each question; None if no two questions share one.
    weight: of each question, with mean 1; None for the plain mean.

    Raises MapflowError without questions.
    """
    if len(difference) == 0:
        raise MapflowError("the difference of runs without questions is undefined; check the runs")
    weights = np.ones(len(difference)) if weight is None else weight
    net = difference * weights
    return _of_sums(net, weights, float(net[net > 0].sum()), -float(net[net < 0].sum()), cluster)


def mean_difference(
    gained: Float[np.ndarray, " n"],
    lost: Float[np.ndarray, " n"],
    cluster: Int[np.ndarray, " n"] | None,
    seed_variance: float,
    seed_freedom: int,
    weight: Float[np.ndarray, " n"] | None = None,
) -> PairedDifference:
    """The sums for a mean over seeds; `gained` and `lost` are shares of the seeds.

    weight: as in `paired_difference`.
    """
    size = np.ones(len(gained)) if weight is None else weight
    net, up, down = (gained - lost) * size, float(gained @ size), float(lost @ size)
    found = _of_sums(net, size, up, down, cluster)
    return replace(found, seed_variance=seed_variance, seed_freedom=seed_freedom)


def _of_sums(
    net: Float[np.ndarray, " n"],
    weight: Float[np.ndarray, " n"],
    gained: float,
    lost: float,
    cluster: Int[np.ndarray, " n"] | None,
) -> PairedDifference:
    own = (float(net @ net), float(net @ weight), float(weight @ weight))
    n, sums = float(weight.sum()), own
    if cluster is not None:
        net, size = cluster_sums(net, cluster), cluster_sums(weight, cluster)
        sums = (float(net @ net), float(net @ size), float(size @ size))
    return PairedDifference(gained, lost, n, *sums, own)


def _with_seeds(score: float, distance: float, found: PairedDifference) -> float:
    """The score if seeds vary too: each part of the variance has its own quantile.

    The one-sided level a solves distance² = z(a)²·(variance by question) + t(a)²·(variance between
    seeds). The level holds for any mixture of both (Banerjee 1960, Sankhyā 22:357-358).
    """
    questions, seeds = 1 / score**2, found.seed_variance / distance**2

    def excess(z: float) -> float:
        t = float(stdtrit(found.seed_freedom, math.exp(log_ndtr(-z))))
        return z * z * questions + t * t * seeds - 1

    top = min(score, 37.0)  # without variance between seeds
    return float(brentq(excess, 0.0, top)) if excess(top) > 0 else top


@dataclass(frozen=True)
class NonInferiority:
    """The verdict against a margin, and the one-sided p-values behind it.

    p_value: of "worse by the margin or more"; p_inferior: of "worse by less than the margin".
    p_holm, p_inferior_holm: both corrected for the `family` of comparisons that are judged
        together. A verdict is reached below (1 − confidence) / 2.
    """

    verdict: Verdict
    margin: float
    confidence: float
    p_value: float
    p_inferior: float
    p_holm: float
    p_inferior_holm: float
    family: int = 1


@dataclass(frozen=True)
class Equivalence:
    """The result of two one-sided tests; `p_value` is the larger of the two."""

    equivalent: bool
    margin: float
    alpha: float
    p_value: float


def non_inferiority(
    difference: PairedDifference, margin: Real = DEFAULT_MARGIN, confidence: Real = 0.95
) -> NonInferiority:
    """The verdict that the interval of `difference` allows, for this comparison alone.

    margin: the loss that still counts as non-inferior, as a fraction.
    """
    check_fraction("margin", margin)
    check_fraction("confidence", confidence)
    low, high = difference.tails(-margin)
    return _judged(NonInferiority("inconclusive", margin, confidence, low, high, low, high))


def judged_together(
    claims: Sequence[NonInferiority], better: Sequence[bool]
) -> list[NonInferiority]:
    """The verdicts of a family of comparisons: all p-values corrected (Holm 1979).

    If all true differences are at the margin, any wrong "non-inferior" has a probability of at most
    (1 − confidence) / 2, and so has any wrong "inferior".

    better: whether a treatment is significantly better, after correction; then it is non-inferior.
    """
    tails = (
        holm(np.array([claim.p_value for claim in claims])),
        holm(np.array([claim.p_inferior for claim in claims])),
    )
    return [
        _judged(
            replace(claim, p_holm=float(p), p_inferior_holm=float(q), family=len(claims)), ahead
        )
        for claim, p, q, ahead in zip(claims, *tails, better, strict=True)
    ]


def _judged(claim: NonInferiority, better: bool = False) -> NonInferiority:
    alpha = (1 - claim.confidence) / 2
    verdict: Verdict = "inconclusive"
    if claim.p_holm < alpha or better:
        verdict = "non-inferior"
    elif claim.p_inferior_holm < alpha:
        verdict = "inferior"
    return replace(claim, verdict=verdict)


def equivalence(
    difference: PairedDifference, margin: Real = DEFAULT_MARGIN, alpha: Real = 0.05
) -> Equivalence:
    """Two one-sided tests of `difference` against −margin and +margin."""
    check_fraction("margin", margin)
    check_fraction("alpha", alpha)
    p_value = max(difference.tails(-margin)[0], difference.tails(margin)[1])
    return Equivalence(p_value < alpha, margin, alpha, p_value)

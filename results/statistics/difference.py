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
from mapflow.results.statistics.multiplicity import holm

Verdict = Literal["non-inferior", "inferior", "inconclusive"]
DEFAULT_MARGIN = 0.02
STEPS = 64
"""Points on each side at which limits are looked for before they are refined."""
MANY = 100
"""Videos, weighted by their questions, above which the score always grows with the distance."""


def restricted_loss(gained: Real, lost: Real, n: Real, difference: Real) -> float:
    """The most likely probability of a lost question if that of a gained one is `difference` more.

    difference: from 0 to 1. Source: Tango (1998), Statistics in Medicine 17:891-908, equation 26:
    the positive root of 2n·q² + b·q + c = 0.
    """
    b = (2 * n - gained + lost) * difference - gained - lost
    c = -lost * difference * (1 - difference)
    radical = math.sqrt(max(b * b - 8 * n * c, 0.0))
    return (-2 * c / (b + radical) if b + radical > 0 else 0.0) if b > 0 else (radical - b) / 4 / n


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

        With few and very unequal clusters, differences further away can fit better again. They
        stay rejected: the score is the furthest on the way from the estimate.
        """
        found, reach = self._score_at(difference), abs(difference - self.estimate)
        if self.n**2 > MANY * self.sizes:
            return found
        way = [one for one in self._way(difference) if abs(one - self.estimate) < reach]
        return max([found, *map(self._score_at, way)], key=abs)

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
        return _mid_p_score(n, min(loss + difference, 1.0), loss, gained - lost)

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
        """The first difference on the way to `bound` that has this score, or `bound`."""
        estimate = self.estimate
        if abs(estimate - bound) < 1e-12:
            return bound
        before = estimate
        for here in self._way(bound):
            if (self._score_at(here) - target) * target >= 0:
                return float(brentq(lambda d: self._score_at(d) - target, before, here, xtol=1e-13))
            before = here
        return bound


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
) -> PairedDifference:
    """The sums for a mean over seeds; `gained` and `lost` are shares of the seeds."""
    net, size = gained - lost, np.ones(len(gained))
    found = _of_sums(net, size, float(gained.sum()), float(lost.sum()), cluster)
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


def _mid_p_score(n: float, gain: float, loss: float, net: float) -> float:
    """The standard normal value whose upper tail is the mid-p value of `net` or more.

    `net` is gained − lost questions of `n`, with probabilities `gain` and `loss`. Adding a uniform
    variable of one step's width turns the tail into the mid-p value; its saddlepoint is found by
    Newton's method. Source: Barndorff-Nielsen (1986), Biometrika 73:307-322.
    """
    mean, spread = n * (gain - loss), n * (gain + loss - (gain - loss) ** 2) + 1 / 12
    low, high, u = -700.0, 700.0, max(-3.0, min(3.0, (net - mean) / spread))
    for _ in range(200):
        value, slope, curvature = _cumulants(u, n, gain, loss)
        low, high = (low, u) if slope > net else (u, high)
        step = u - (slope - net) / curvature
        step = step if low < step < high else (low + high) / 2
        if abs(step - u) <= 1e-13 * max(1.0, abs(u)):
            break
        u = step
    value, _, curvature = _cumulants(u, n, gain, loss)
    w = math.copysign(math.sqrt(max(2 * (u * net - value), 0.0)), u)
    if abs(w) < 1e-4:  # the formula's limit at the mean
        mean, both = gain - loss, gain + loss
        return w + n * (mean - 3 * mean * both + 2 * mean**3) / spread**1.5 / 6
    return w + math.log(u * math.sqrt(curvature) / w) / w


def _cumulants(u: float, n: float, gain: float, loss: float) -> tuple[float, float, float]:
    """The cumulant generating function of the smoothed net gain at `u`, and two derivatives."""
    a, sign = abs(u), math.copysign(1.0, u)
    towards, against = (gain, loss) if u >= 0 else (loss, gain)
    shrink = math.exp(-a)
    total = towards + max(1 - gain - loss, 0.0) * shrink + against * shrink**2
    up, down = towards / total, against * shrink**2 / total
    if a < 1e-2:
        smooth = (a * a / 24 - a**4 / 2880, a / 12 - a**3 / 720, 1 / 12 - a * a / 240)
    else:
        rest = -math.expm1(-a)
        smooth = (
            a / 2 + math.log(rest / a),
            (1 + shrink) / rest / 2 - 1 / a,
            1 / a**2 - shrink / rest**2,
        )
    return (
        n * (math.log(total) + a) + smooth[0],
        n * sign * (up - down) + sign * smooth[1],
        n * (up + down - (up - down) ** 2) + smooth[2],
    )


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

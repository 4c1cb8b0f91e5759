"""Simulated paired runs with given videos, correlation, discordance and difference.

Each question falls into one of four cells: right under both, lost, gained, wrong under both. With
probability √ρ it takes the common cell of its video, otherwise it draws one ("copied"). Or each
video has cell probabilities of its own, drawn from a Dirichlet distribution ("drawn"). In both
cases cells have exactly the given probabilities, and any two questions of a video have correlation
ρ, in either run and in their difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import expit
from scipy.stats import norm

TVBENCH = {
    "action_count": {1: 298, 2: 80, 3: 26},
    "action_localization": {1: 160},
    "action_sequence": {1: 249, 2: 74, 3: 12, 4: 1},
    "egocentric_sequence": {1: 1, 2: 4, 3: 6, 4: 5, 5: 11, 6: 5, 7: 4, 8: 5},
    "moving_direction": {1: 232},
}
"""Subtask → questions per video → videos, counted in the question files of five subtasks."""


@dataclass(frozen=True)
class Videos:
    """Questions per video, and the subtask of each video."""

    sizes: tuple[int, ...]
    tasks: tuple[int, ...] = ()

    @property
    def cluster(self) -> np.ndarray:
        return np.repeat(np.arange(len(self.sizes)), self.sizes)

    @property
    def task(self) -> np.ndarray:
        return np.repeat(self.tasks or [0] * len(self.sizes), self.sizes)


def videos(*groups: tuple[int, int]) -> Videos:
    """(number of videos, questions of each) pairs."""
    return Videos(tuple(size for number, size in groups for _ in range(number)))


def tvbench_videos() -> Videos:
    sizes, tasks = [], []
    for code, histogram in enumerate(TVBENCH.values()):
        for size, number in histogram.items():
            sizes += [size] * number
            tasks += [code] * number
    return Videos(tuple(sizes), tuple(tasks))


def draw_cells(
    rng: np.random.Generator, shape: Videos, shares: np.ndarray, correlation: float, how: str
) -> np.ndarray:
    """The cell of every question, 0 to 3, with probabilities `shares`."""
    cluster, n = shape.cluster, sum(shape.sizes)
    if how == "drawn" and correlation > 0:
        weight = rng.gamma(shares * (1 / correlation - 1), size=(len(shape.sizes), 4))
        weight = np.maximum(weight, 1e-300)
        steps = np.cumsum(weight / weight.sum(axis=1, keepdims=True), axis=1)[cluster, :3]
        return (rng.random(n)[:, None] > steps).sum(axis=1)
    steps = np.cumsum(shares)[:3]
    own = np.searchsorted(steps, rng.random(n))
    if correlation == 0:
        return own
    common = np.searchsorted(steps, rng.random(len(shape.sizes)))[cluster]
    return np.where(rng.random(n) < correlation**0.5, common, own)


def draw_runs(
    rng: np.random.Generator,
    shape: Videos,
    correlation: float,
    discordance: float,
    difference: float,
    how: str = "copied",
) -> tuple[np.ndarray, np.ndarray]:
    """A baseline and a treatment: 0/1 outcomes of every question."""
    gained, lost = (discordance + difference) / 2, (discordance - difference) / 2
    rest = (1 - discordance) / 2
    cell = draw_cells(rng, shape, np.array([rest, lost, gained, rest]), correlation, how)
    return cell <= 1, (cell == 0) | (cell == 2)


def draw_treatments(
    rng: np.random.Generator,
    shape: Videos,
    correlation: float,
    discordance: float,
    difference: float,
    treatments: int,
) -> np.ndarray:
    """Treatment − baseline of several treatments with one baseline, in which half are right."""
    right, _ = draw_runs(rng, shape, correlation, 0.0, 0.0)
    found = []
    for _ in range(treatments):
        lost = _marked(rng, shape, correlation, discordance - difference) & right
        gained = _marked(rng, shape, correlation, discordance + difference) & ~right
        found.append(gained.astype(int) - lost)
    return np.stack(found)


def _marked(
    rng: np.random.Generator, shape: Videos, correlation: float, share: float
) -> np.ndarray:
    """Marks a share of the questions, correlated by video."""
    common = (rng.random(len(shape.sizes)) < share)[shape.cluster]
    own = rng.random(sum(shape.sizes)) < share
    return np.where(rng.random(len(own)) < correlation**0.5, common, own)


def draw_models(
    rng: np.random.Generator,
    shape: Videos,
    correlation: float,
    flips: tuple[float, float],
    losses: tuple[float, float],
) -> list[np.ndarray]:
    """Two models, each a baseline that is half right and a treatment: [2, questions] each.

    flips: the share of questions that each treatment flips; losses: the share of flips that are
    losses, so a model's true difference is flips · (1 − 2 · losses).
    """
    models = []
    for flipped, share in zip(flips, losses, strict=True):
        before = _marked(rng, shape, correlation, 0.5)
        lost = _marked(rng, shape, correlation, 2 * flipped * share)
        gained = _marked(rng, shape, correlation, 2 * flipped * (1 - share))
        models.append(np.stack([before, (before & ~lost) | (~before & gained)]))
    return models


def draw_probabilities(
    rng: np.random.Generator, shape: Videos, correlation: float, skewed: bool
) -> np.ndarray:
    """Changes of the right answer's probability whose true mean is 0.

    Exchangeable runs: logits of both runs around a level of the question. Skewed: 5 % of the
    questions lose 0.6 and all others gain as little as makes up for it. What decides is normal,
    with `correlation` between questions of a video.
    """
    cluster, n = shape.cluster, sum(shape.sizes)

    def by_video() -> np.ndarray:
        common, own = rng.normal(size=len(shape.sizes))[cluster], rng.normal(size=n)
        return correlation**0.5 * common + (1 - correlation) ** 0.5 * own

    change = by_video()
    if skewed:
        return np.where(change < norm.ppf(0.05), -0.6, 0.6 * 0.05 / 0.95)
    level = 2 * by_video()
    return expit(level + change) - expit(level - change)


def draw_seeds(
    rng: np.random.Generator, shape: Videos, seeds: int, spread: float
) -> tuple[np.ndarray, np.ndarray]:
    """A baseline and several seeds of a condition that is equally good on average.

    Half of the variance of a question's chance is its video's. `spread` is the standard deviation
    of the seeds' accuracies that questions do not explain.
    """
    video, own = rng.random(len(shape.sizes))[shape.cluster], rng.random(sum(shape.sizes))
    chance = 0.25 + 0.5 * (video + own) / 2
    shift = rng.normal(0.0, spread, size=(seeds, 1))
    return rng.random(len(own)) < chance, rng.random((seeds, len(own))) < chance + shift


def draw_changes(
    repetitions: int,
    seed: int,
    *,
    videos: int = 50,
    questions: int = 10,
    layers: int = 28,
    affected: int = 0,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Knockout sweeps: relative changes in percent, questions × layers, and the videos.

    Neighbouring layers have correlation 0.8, questions of a video 0.3. Values are skewed like a
    ratio of probabilities: bounded below, with a long upper tail. The mean is −15 in the first
    `affected` layers and 0 in the others.
    """
    rng = np.random.default_rng(seed)
    cluster = np.repeat(np.arange(videos), questions)
    for _ in range(repetitions):
        shared, own = (_walk(rng, rows, layers) for rows in (videos, len(cluster)))
        normal = 0.3**0.5 * shared[cluster] + 0.7**0.5 * own
        spread = 0.4
        change = 100 * (np.exp(spread * normal - spread**2 / 2) - 1)
        change[:, :affected] -= 15
        yield change, cluster


def _walk(rng: np.random.Generator, rows: int, layers: int) -> np.ndarray:
    step = rng.standard_normal((rows, layers))
    for layer in range(1, layers):
        step[:, layer] = 0.8 * step[:, layer - 1] + 0.6 * step[:, layer]
    return step

"""Simulated paired runs with given clusters, correlation, discordance and difference.

Each question falls into one of four cells: right under both, lost, gained, wrong under both. With
probability √ρ it takes the common cell of its video, otherwise it draws one. So cells have exactly
the given probabilities, and any two questions of a video have correlation ρ, in either run and in
their difference.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Design:
    """What is simulated; `sizes` are questions per video, `difference` is treatment − baseline."""

    name: str
    sizes: np.ndarray
    correlation: float
    discordance: float
    difference: float = 0.0

    @property
    def cluster(self) -> np.ndarray:
        return np.repeat(np.arange(len(self.sizes)), self.sizes)


def draw_runs(
    design: Design, repetitions: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """`repetitions` pairs (baseline, treatment) of 0/1 outcomes."""
    rng = np.random.default_rng(seed)
    gained = (design.discordance + design.difference) / 2
    lost = (design.discordance - design.difference) / 2
    rest = (1 - design.discordance) / 2
    steps = np.cumsum([rest, lost, gained])
    cluster = design.cluster
    for _ in range(repetitions):
        common = np.searchsorted(steps, rng.random(len(design.sizes)))[cluster]
        own = np.searchsorted(steps, rng.random(len(cluster)))
        cell = np.where(rng.random(len(cluster)) < design.correlation**0.5, common, own)
        yield cell <= 1, (cell == 0) | (cell == 2)


def fifty_videos() -> np.ndarray:
    """50 videos with 10 questions each."""
    return np.full(50, 10)


def unequal_videos() -> np.ndarray:
    """Very unequal, as in TVBench: most videos have one question, some up to eight, one has 30."""
    return np.repeat([1, 2, 3, 5, 8, 30], [400, 120, 40, 24, 12, 1])


def tvbench_videos(real_data: Path) -> np.ndarray:
    """Questions per video in the TVBench question files of `real_data`."""
    sizes: list[int] = []
    for file in sorted((real_data / "tvbench" / "json").glob("*.json")):
        sizes += Counter(question["video"] for question in json.loads(file.read_text())).values()
    return np.array(sizes)


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

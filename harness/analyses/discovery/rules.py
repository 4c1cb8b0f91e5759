"""Rules of discovery: from records of sweeps to the layer ranges of the three effective pathways.

- `paper`: bins of layers whose mean relative change lies below a threshold (paper, Table E: bins
  of 5 layers, −5 %, window 9, Action Antonym, questions that the model answers right).
- `confidence`: those of these bins whose whole simultaneous 95 % band (max-T by video) lies below
  zero.
- `marginal`: bins whose cut costs more than the threshold if all later layers, or all earlier
  ones, are cut already. If layers can replace one another, cutting a single one costs nothing and
  the first two rules find nothing. Such costs add up over layers: the threshold is that of five
  layers, the paper's bin, and scales with the size of a bin.

A range reaches from the first such bin to the last.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, Int

from mapflow.model_adapters.interventions import LayerSpan, PathwayRanges
from mapflow.model_adapters.interventions.language.layers import WindowStyle
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import coded
from mapflow.results.records.sweep import SweepRecord

Rule = Literal["paper", "confidence", "marginal"]
RULES: tuple[Rule, ...] = get_args(Rule)
PATHWAYS = {
    "cross_frame": "cross-frame",
    "video_to_question": "video->question",
    "question_to_last": "question->last",
}
"""Name in PathwayRanges → the route that is swept for it."""
PAPER_BIN = 5
"""Layers of the bins to which the paper's −5 % refers."""
STYLES: tuple[WindowStyle, ...] = ("center", "top-down", "bottom-up")
"""Window styles of the sweeps: `paper` and `confidence` read the first, `marginal` the others."""
Sweeps = Mapping[WindowStyle, Sequence[SweepRecord]]


@dataclass(frozen=True)
class Found:
    """The result of one rule: a range for each pathway (by its name in PathwayRanges), or None."""

    rule: Rule
    threshold: float
    spans: Mapping[str, LayerSpan | None]

    @property
    def ranges(self) -> PathwayRanges | None:
        """None unless all three pathways were found: the policy needs all of them."""
        spans = {name: span for name, span in self.spans.items() if span is not None}
        return PathwayRanges(**spans) if len(spans) == len(PATHWAYS) else None


def fold_of_videos(records: Sequence[SweepRecord]) -> dict[str, int]:
    """Video → fold 0 or 1; tasks are split evenly.

    Does not depend on the order of the records. Questions about one video share a fold.
    """
    task = {r.video_id: r.task for r in sorted(records, key=lambda r: r.key, reverse=True)}
    by_task = sorted(
        task, key=lambda video: (task[video], hashlib.sha256(video.encode()).hexdigest())
    )
    return {video: place % 2 for place, video in enumerate(by_task)}


def discover(sweeps: Sweeps, rule: Rule, threshold: float, bin_size: int) -> Found:
    """Ranges of the three pathways.

    `threshold` is in percent and negative (`marginal`: of five layers), `bin_size` in layers.

    Raises MapflowError if no question has a relative change for a route, or if a band cannot be
    computed.
    """
    if rule == "marginal":
        chosen = {
            name: _marginal(sweeps, route, threshold, bin_size) for name, route in PATHWAYS.items()
        }
    else:
        chosen = {
            name: _windows(sweeps, route, threshold, bin_size, rule == "confidence")
            for name, route in PATHWAYS.items()
        }
    return Found(
        rule, threshold, {name: hull(bins, bin_size, n) for name, (bins, n) in chosen.items()}
    )


def changes(
    records: Sequence[SweepRecord], route: str
) -> tuple[Float[np.ndarray, "n layers"], Int[np.ndarray, " n"]]:
    """Relative change of the baseline answer in percent, and the code of each question's video.

    One row per question, in the order of ids.

    Raises MapflowError if no question has one.
    """
    own = sorted(
        (r for r in records if r.route == route and r.measured and r.change_answer is not None),
        key=lambda r: r.key,
    )
    if not own:
        raise MapflowError(
            f"no question of this split has a relative change for {route}: take more questions, or"
            " --samples all"
        )
    video = np.array(coded(r.video_id for r in own)[1])
    return np.array([r.change_answer for r in own], float), video


def marginal_costs(
    top_down: Float[np.ndarray, "n layers"], bottom_up: Float[np.ndarray, "n layers"], bin_size: int
) -> tuple[Float[np.ndarray, "n bins"], Float[np.ndarray, "n bins"]]:
    """The change that cutting a bin adds to cuts of all later layers, and of all earlier ones.

    `top_down[:, l]` is the change with layers l + 1 to the last cut, `bottom_up[:, l]` with the
    first to l + 1. Each result sums, over the bins, to the change with all layers cut.
    """
    n, n_layers = top_down.shape
    starts = np.arange(0, n_layers, bin_size)
    ends = np.minimum(starts + bin_size, n_layers)
    nothing = np.zeros((n, 1))
    from_here, up_to_here = np.hstack([top_down, nothing]), np.hstack([nothing, bottom_up])
    return from_here[:, starts] - from_here[:, ends], up_to_here[:, ends] - up_to_here[:, starts]


def hull(bins: Bool[np.ndarray, " bins"], bin_size: int, n_layers: int) -> LayerSpan | None:
    """From the first chosen bin to the last, in layers; None without any."""
    chosen = np.flatnonzero(bins)
    if not len(chosen):
        return None
    return LayerSpan(int(chosen[0]) * bin_size + 1, min((int(chosen[-1]) + 1) * bin_size, n_layers))


def _windows(
    sweeps: Sweeps, route: str, threshold: float, bin_size: int, confident: bool
) -> tuple[Bool[np.ndarray, " bins"], int]:
    change, video = changes(sweeps["center"], route)
    n_layers = change.shape[1]
    binned = np.stack(
        [change[:, start : start + bin_size].mean(1) for start in range(0, n_layers, bin_size)], 1
    )
    chosen = binned.mean(0) < threshold
    if confident:
        from mapflow.results.statistics import simultaneous_bands

        # questions that differ by less than the threshold count as equal
        chosen &= simultaneous_bands(binned, video, resolution=-threshold).high < 0
    return chosen, n_layers


def _marginal(
    sweeps: Sweeps, route: str, threshold: float, bin_size: int
) -> tuple[Bool[np.ndarray, " bins"], int]:
    top_down, _ = changes(sweeps["top-down"], route)
    bottom_up, _ = changes(sweeps["bottom-up"], route)
    later, earlier = marginal_costs(top_down, bottom_up, bin_size)
    threshold *= bin_size / PAPER_BIN
    return (later.mean(0) < threshold) | (earlier.mean(0) < threshold), top_down.shape[1]

"""Discovery: from a sweep's records to the layer ranges of the three effective pathways, by three rules.

- `paper`: bins of layers whose mean relative change lies below a threshold (paper, Section 4: 5 layers, −5 %);
- `confidence`: of these bins, those whose simultaneous 95 % band (max-T by video) lies below zero as a whole;
- `marginal`: bins whose cut costs more than the threshold *on top of* having cut all later layers, or all earlier ones.
  Where layers can stand in for one another, cutting one costs nothing, and the first two rules see nothing. Such costs
  add up over layers, so the threshold is that of five layers, the paper's bin, and a bin's is in proportion.

A range reaches from the first such bin to the last. Knows no model, no task and no file.
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
from mapflow.results.records.sweep import SweepRecord
from mapflow.results.statistics import simultaneous_bands

Rule = Literal["paper", "confidence", "marginal"]
RULES: tuple[Rule, ...] = get_args(Rule)
PATHWAYS = {
    "cross_frame": "cross-frame",
    "video_to_question": "video->question",
    "question_to_last": "question->last",
}
"""Name in PathwayRanges → route that is swept for it."""
PAPER_BIN = 5
"""Layers of the bins to which the paper's −5 % refers."""
STYLES: tuple[WindowStyle, ...] = ("center", "top-down", "bottom-up")
"""Sweeps that the rules read: `paper` and `confidence` the first, `marginal` the other two."""
Sweeps = Mapping[WindowStyle, Sequence[SweepRecord]]


@dataclass(frozen=True)
class Found:
    """What one rule found: a range a pathway (names of PathwayRanges), None where no bin passed."""

    rule: Rule
    threshold: float
    spans: Mapping[str, LayerSpan | None]

    @property
    def ranges(self) -> PathwayRanges | None:
        """None unless all three pathways were found: a policy without one of them is no policy."""
        spans = {name: span for name, span in self.spans.items() if span is not None}
        return PathwayRanges(**spans) if len(spans) == len(PATHWAYS) else None


def fold_of_videos(records: Sequence[SweepRecord]) -> dict[str, int]:
    """Video → fold 0 or 1. Questions about one video stay together, tasks are split evenly, and the order of the records
    does not matter."""
    task = {r.video_id: r.task for r in sorted(records, key=lambda r: r.key, reverse=True)}
    by_task = sorted(
        task, key=lambda video: (task[video], hashlib.sha256(video.encode()).hexdigest())
    )
    return {video: place % 2 for place, video in enumerate(by_task)}


def discover(sweeps: Sweeps, rule: Rule, threshold: float, bin_size: int) -> Found:
    """Ranges of the three pathways. `threshold` in percent, negative (`marginal`: of five layers); `bin_size` in layers.

    Raises MapflowError where no question has a relative change for a route, and where a band cannot be given.
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
    """Relative change of the plain run's answer in percent, a row a question in order of ids, and the videos' codes.

    Raises MapflowError where no question has one.
    """
    own = sorted(
        (r for r in records if r.route == route and r.change_answer is not None),
        key=lambda r: r.key,
    )
    if not own:
        raise MapflowError(
            f"no question of this split has a relative change for {route}: take more questions"
        )
    return np.array([r.change_answer for r in own], float), np.unique(
        [r.video_id for r in own], return_inverse=True
    )[1]


def marginal_costs(
    top_down: Float[np.ndarray, "n layers"], bottom_up: Float[np.ndarray, "n layers"], bin_size: int
) -> tuple[Float[np.ndarray, "n bins"], Float[np.ndarray, "n bins"]]:
    """What cutting a bin adds where all later layers are cut already, and where all earlier ones are.

    `top_down[:, l]` is the change with layers from l + 1 to the last cut, `bottom_up[:, l]` that from the first to l + 1.
    Either sums up, over the bins, to the change with all layers cut.
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
        # questions that differ by less than the threshold do not differ for our purpose
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

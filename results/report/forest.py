"""The forest plot of the first screen: one small drawing per run, as inline SVG.

Positions are percentages of the drawing's width, so a drawing fills its cell on any screen and its
text keeps its size. The numbers stand beside each drawing as text.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mapflow.results.report.contents import BenchmarkInShort
from mapflow.results.statistics import Interval

HEIGHT, AXIS = 26, 20
"""Of a row and of the axis below the rows, in pixels."""
STEPS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.5)
"""Distances between the ticks of an axis, as fractions."""
TICKS = 6
"""Ticks of an axis, at most, its ends included."""


@dataclass(frozen=True)
class Scale:
    """An axis from `low` to `high` with its ticks, all as fractions. Both ends are ticks."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def __call__(self, value: float) -> float:
        """The place of a value, in percent of the width; the ends leave room for a label."""
        inside = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return 5 + 90 * inside


def scale_for(values: Iterable[float]) -> Scale:
    """The shortest axis with round ticks that holds all values."""
    found = [value for value in values if math.isfinite(value)]
    low, high = min(found, default=0.0), max(found, default=1.0)
    for step in STEPS:
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        last = max(last, first + 1)
        if last - first < TICKS:
            break
    else:
        first, last, step = math.floor(low), math.ceil(high), 1.0
    ticks = tuple(round(number * step, 6) for number in range(first, last + 1))
    return Scale(ticks[0], ticks[-1], ticks)


def accuracy_scale(shown: BenchmarkInShort) -> Scale:
    """Holds all accuracies with their intervals, and chance."""
    values = [value for run in shown.runs for value in _limits(run.accuracy)]
    return scale_for([*values, *([] if shown.chance is None else [shown.chance])])


def difference_scale(shown: BenchmarkInShort) -> Scale | None:
    """Holds all differences with their intervals, zero and the margin; None without any."""
    own = [run.difference for run in shown.runs if run.difference]
    values = [value for one in own for value in _limits(one)]
    return scale_for([*values, 0.0, -shown.margin]) if own else None


def _limits(one: Interval) -> tuple[float, float, float]:
    return one.low, one.estimate, one.high


def interval_svg(
    one: Interval, scale: Scale, described: str, marks: Sequence[tuple[str, float]] = ()
) -> str:
    """An estimate as a dot on the line of its interval.

    described: the text alternative, free of markup. marks: (CSS class, value) of vertical lines.
    """
    middle = HEIGHT / 2
    lines = "".join(
        f'<line x1="{scale(value):.2f}%" x2="{scale(value):.2f}%" y1="0" y2="{HEIGHT}"'
        f' class="{name}"/>'
        for name, value in marks
    )
    return (
        f'<svg class="track" width="100%" height="{HEIGHT}" role="img"><title>{described}</title>'
        f"{lines}"
        f'<line x1="{scale(one.low):.2f}%" x2="{scale(one.high):.2f}%" y1="{middle:g}"'
        f' y2="{middle:g}" class="interval"/>'
        f'<circle cx="{scale(one.estimate):.2f}%" cy="{middle:g}" r="5" class="estimate"/></svg>'
    )


def axis_svg(scale: Scale, signed: bool) -> str:
    """The ticks of an axis in percent or, `signed`, in points. Hidden from screen readers."""
    texts = "".join(
        f'<text x="{scale(tick):.2f}%" y="14" text-anchor="middle">{_tick(tick, signed)}</text>'
        for tick in scale.ticks
    )
    return f'<svg class="track" width="100%" height="{AXIS}" aria-hidden="true">{texts}</svg>'


def _tick(value: float, signed: bool) -> str:
    text = f"{100 * value:+g}" if signed and value else f"{100 * value:g}"
    return text.replace("-", "−")

"""The results that all statistics return: an interval or a test, with the name of its method.

Accuracies and differences are fractions: 0.02 is two points.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from scipy.optimize import root_scalar

from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.visible_text import counted

Real = int | float
count = counted
NEGLIGIBLE = 1e-300  # smaller probabilities are dropped; p-values are at least this


@dataclass(frozen=True)
class Interval:
    """An estimate with its two-sided confidence limits.

    confidence: as a fraction; 0.95 by default in all statistics.
    """

    estimate: float
    low: float
    high: float
    confidence: float
    method: str


@dataclass(frozen=True)
class Test:
    """A statistic and its two-sided p-value, which is never NaN and never exactly 0."""

    __test__ = False  # pytest would collect a class of this name

    statistic: float
    p_value: float
    method: str


def check_fraction(name: str, value: Real) -> None:
    """Raises MapflowError unless `value` lies strictly between 0 and 1."""
    if not 0.0 < value < 1.0:
        raise MapflowError(
            f"{name} {value:g} is not a fraction between 0 and 1: write two points as 0.02"
        )


def root(function: Callable[[float], float], low: float, high: float) -> float:
    """The zero of a continuous function that changes sign from `low` to `high` (Brent's method)."""
    return float(
        root_scalar(function, bracket=(low, high), method="brentq", xtol=1e-15, rtol=1e-14).root
    )


def points(fraction: float) -> str:
    """A difference in points with its sign: "−0.3", "+0.7", "0.0"."""
    rounded = round(fraction * 100, 1)
    sign = "−" if rounded < 0 else "+" if rounded > 0 else ""
    return f"{sign}{abs(rounded):.1f}"

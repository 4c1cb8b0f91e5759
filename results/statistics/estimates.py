"""What every statistic hands back: an interval or a test, each with the name of the method that made it.

Differences and accuracies are fractions (0.02 is two points); whoever prints them multiplies by 100.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from scipy.optimize import root_scalar

from mapflow.results.contract.errors import MapflowError

Real = int | float
NEGLIGIBLE = 1e-300  # smaller probabilities are dropped, and no p-value is reported below


@dataclass(frozen=True)
class Interval:
    """An estimate between two limits. `confidence` is two-sided, 0.95 by default everywhere."""

    estimate: float
    low: float
    high: float
    confidence: float
    method: str


@dataclass(frozen=True)
class Test:
    """A statistic and its two-sided p-value. The p-value is never NaN and never exactly zero."""

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
    """Where a continuous function that changes sign between `low` and `high` is zero (Brent)."""
    return float(
        root_scalar(function, bracket=(low, high), method="brentq", xtol=1e-15, rtol=1e-14).root
    )

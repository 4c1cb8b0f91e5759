"""A comparison as one plain sentence, in points (hundredths)."""

from __future__ import annotations

from mapflow.results.statistics.compare import Comparison


def sentence(comparison: Comparison, benchmark: str | None = None) -> str:
    """For example: "effective is non-inferior to full on TVBench: −0.3 points, 95 % CI −1.3…+0.7, margin 2;
    127 lost, 119 gained"."""
    where = f" on {benchmark}" if benchmark else ""
    treatment, baseline = comparison.treatment, comparison.baseline
    verdict = {
        "non-inferior": f"{treatment} is non-inferior to {baseline}{where}",
        "inferior": f"{treatment} is inferior to {baseline}{where}",
        "inconclusive": f"it is inconclusive whether {treatment} is inferior to {baseline}{where}",
    }[comparison.non_inferiority.verdict]
    difference, cells = comparison.difference, comparison.cells
    return (
        f"{verdict}: {points(difference.estimate)} points, {difference.confidence * 100:g} % CI"
        f" {points(difference.low)}…{points(difference.high)}, margin {comparison.non_inferiority.margin * 100:g};"
        f" {cells.lost:,} lost, {cells.gained:,} gained"
    )


def points(fraction: float) -> str:
    """A difference in points with its sign: "−0.3", "+0.7", "0.0"."""
    rounded = round(fraction * 100, 1)
    sign = "−" if rounded < 0 else "+" if rounded > 0 else ""
    return f"{sign}{abs(rounded):.1f}"

"""The largest discordance at which each claim of the paper's Table 3 is non-inferior at two points.

Only accuracies and the number of questions are published, so the share of questions that flipped is
unknown. `python published_claims.py` prints the largest possible share as a Markdown table.
"""

from __future__ import annotations

from mapflow.results.statistics import largest_non_inferior_discordance, points
from mapflow.results.tables.published import published

BENCHMARKS = {"mapflow_tvbench": ("TVBench", 2525), "mapflow_tomato": ("TOMATO", 1484)}
ROUNDING = 0.001
"""Largest rounding error of the difference: half of the last digit of each accuracy."""


def claims_table() -> str:
    """The table of the README."""
    rows = [row for row in published() if row.table == "map-the-flow-3"]
    lines = [
        "| model | benchmark | full → effective | difference | non-inferior up to | worst rounding"
        " | design effect 1.5 |",
        "|---|---|---|---|---|---|---|",
    ]
    for model in dict.fromkeys(row.model for row in rows):
        of_model = {row.intervention: row.accuracy for row in rows if row.model == model}
        for task, (benchmark, n) in BENCHMARKS.items():
            full, effective = of_model["full"][task], of_model["effective"][task]
            difference = (effective - full) / 100
            limits = (
                largest_non_inferior_discordance(n, difference),
                largest_non_inferior_discordance(n, difference - ROUNDING),
                largest_non_inferior_discordance(n, difference, design_effect=1.5),
            )
            shown = " | ".join(
                "never" if limit is None else f"{limit * 100:.1f} %" for limit in limits
            )
            lines.append(
                f"| {model} | {benchmark} | {full} → {effective} | {points(difference)} | {shown} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    print(claims_table())

"""The tables on probabilities, interactions and power, from the counts of `simulate.py`.

    python tests/results/calibration/planning_tables.py [OUT]

With OUT, the folder of `simulate.py --of planning`, its counts are first gathered into
planning.json. Prints the Markdown tables of `results/statistics/README.md`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from draw_calibration import Row, gather, rate
from planning_settings import (
    EXCHANGEABLE,
    INTERACTION,
    LIMIT,
    NO_INTERACTION,
    POINTS,
    POWER,
    SAME,
    SKEWED,
    planning_settings,
)
from settings import Setting

from mapflow.results.statistics import (
    kish_design_effect,
    power_of_difference,
    power_of_non_inferiority,
)

MEASURED = Path(__file__).with_name("planning.json")
VERDICTS = ("non-inferior", "different")


def predicted(setting: Setting) -> tuple[float, float]:
    """The power that the formulas give, in percent: non-inferior, different."""
    sizes, values = np.array(setting.shape.sizes), setting.values
    design = {"design_effect": kish_design_effect(sizes, values["correlation"])}
    asked = (int(sizes.sum()), values["flips"], values["true"])
    return (
        100 * power_of_non_inferiority(*asked, **design),
        100 * power_of_difference(*asked, **design),
    )


def holds(row: Row) -> bool:
    """Whether the setting is within its limit, up to two Monte-Carlo standard errors."""
    if row["panel"] == POWER:
        setting = _by_name(POWER)[row["setting"]]
        return all(
            abs(rate(row, name) - expected) <= POINTS + 2 * _error(expected, row)
            for name, expected in zip(VERDICTS, predicted(setting), strict=True)
        )
    limit = LIMIT[row["panel"]]
    return rate(row) <= limit + 2 * _error(limit, row)


def summary(rows: list[Row]) -> str:
    """One row per panel: the range of rates, and how many settings hold."""
    lines = [
        "| measured | limit | range | held-out settings | settings that hold |"
        " simulations of each, standard error of 5 % |",
        "|---|---|---|---|---|---|",
    ]
    for panel in (*LIMIT, POWER):
        own = [row for row in rows if row["panel"] == panel]
        new = [row for row in own if row["held_out"]]
        limit = f"{POINTS:g} points apart" if panel == POWER else f"{LIMIT[panel]:g} %"
        worst = _distances if panel == POWER else _rates
        fewest = min(row["repetitions"] for row in own)
        error = 100 * (0.05 * 0.95 / fewest) ** 0.5
        lines.append(
            f"| {panel} | {limit} | {worst(own)} | {worst(new)} |"
            f" {sum(map(holds, own))} of {len(own)} | {fewest:,}, {error:.2f} |"
        )
    return "\n".join(lines)


def probabilities(rows: list[Row]) -> str:
    """False positives of the test of a mean change."""
    lines = [
        "| simulated, no difference, p < 0.05 | exchangeable runs, % |"
        " 5 % lose 0.6, others gain, % |",
        "|---|---|---|",
    ]
    skewed = {row["setting"]: row for row in rows if row["panel"] == SKEWED}
    lines += [
        f"| {_name(row)} | {_shown(row)} | {_shown(skewed[row['setting']])} |"
        for row in rows
        if row["panel"] == EXCHANGEABLE
    ]
    return "\n".join(lines)


def interactions(rows: list[Row]) -> str:
    """False positives by design and by how the models flip."""
    found = {row["setting"]: row for row in rows if row["panel"] == NO_INTERACTION}
    lines = [
        f"| simulated, no interaction | {' | '.join(SAME)} |",
        "|---" * (len(SAME) + 1) + "|",
    ]
    first = f", {next(iter(SAME))}"
    for name in [name.removesuffix(first) for name in found if name.endswith(first)]:
        own = [found[f"{name}, {title}"] for title in SAME]
        mark = " (held out)" if own[0]["held_out"] else ""
        lines.append(f"| {name}{mark} | {' | '.join(map(_shown, own))} |")
    return "\n".join(lines)


def missed(rows: list[Row]) -> str:
    """Intervals that miss a true interaction."""
    lines = [
        "| simulated, a true interaction | intervals that miss it, % | robust t, % |",
        "|---|---|---|",
    ]
    lines += [
        f"| {_name(row)} | {_shown(row)} | {rate(row, 'robust t'):.1f} |"
        for row in rows
        if row["panel"] == INTERACTION
    ]
    return "\n".join(lines)


def power(rows: list[Row]) -> str:
    """Shares of verdicts beside those that the formulas predict."""
    lines = [
        "| simulated: questions, design effect | flips, true difference |"
        " non-inferior: simulated, predicted | different: simulated, predicted |",
        "|---|---|---|---|",
    ]
    known = _by_name(POWER)
    for row in rows:
        if row["panel"] != POWER:
            continue
        setting = known[row["setting"]]
        sizes = np.array(setting.shape.sizes)
        effect = kish_design_effect(sizes, setting.values["correlation"])
        shape, flips, true = row["setting"].rsplit(", ", 2)
        pairs = [
            f"{rate(row, name):.1f}, {expected:.1f}"
            for name, expected in zip(VERDICTS, predicted(setting), strict=True)
        ]
        held = " (held out)" if row["held_out"] else ""
        held += "" if holds(row) else " **†**"
        lines.append(
            f"| {shape}: {sizes.sum():,}, {effect:.1f}{held} | {flips}, {true} |"
            f" {' | '.join(pairs)} |"
        )
    return "\n".join(lines)


def tables(rows: list[Row]) -> list[str]:
    return [part(rows) for part in (summary, probabilities, interactions, missed, power)]


def _by_name(panel: str) -> dict[str, Setting]:
    return {one.name: one for one in planning_settings() if one.panel == panel}


def _error(percent: float, row: Row) -> float:
    """The Monte-Carlo standard error of a rate, in points."""
    return 100 * (percent / 100 * (1 - percent / 100) / row["repetitions"]) ** 0.5


def _rates(rows: list[Row]) -> str:
    found = sorted(map(rate, rows))
    return f"{found[0]:.1f}-{found[-1]:.1f} %"


def _distances(rows: list[Row]) -> str:
    known = _by_name(POWER)
    apart = [
        abs(rate(row, name) - expected)
        for row in rows
        for name, expected in zip(VERDICTS, predicted(known[row["setting"]]), strict=True)
    ]
    return f"up to {max(apart):.1f} points"


def _name(row: Row) -> str:
    return row["setting"] + (" (held out)" if row["held_out"] else "")


def _shown(row: Row) -> str:
    """The rate; bold where it is beyond its limit."""
    return f"{rate(row):.1f}" if holds(row) else f"**{rate(row):.1f}**"


def main() -> None:
    if len(sys.argv) > 1:
        gather(Path(sys.argv[1]), MEASURED, planning_settings())
    print(*tables(json.loads(MEASURED.read_text(encoding="utf-8"))), sep="\n\n")


if __name__ == "__main__":
    main()

"""The calibration table and figure of the README, with many more repetitions than the test.

    python draw_calibration.py [repetitions]

Run it in this folder; the default 10,000 repetitions take 15 minutes. Writes calibration.png to
`results/statistics` and prints the Markdown table.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import matplotlib.pyplot as plt
from error_rates import coverage, false_positives, macro_errors, sweep_errors, wrong_verdicts
from simulated_runs import Design, fifty_videos, tvbench_videos, unequal_videos

ROOT = Path(__file__).parents[3]
REAL_DATA = Path(os.environ.get("MAPFLOW_REAL_DATA", ROOT.parent / "shared" / "data"))
PROMISED = ("default", "max-T", "says non-inferior", "says inferior")
GREEN, RED, BLUE = "#0b6e4f", "#b5484c", "#5b6c8f"
Rows = list[tuple[str, str, float, tuple[float, float]]]


def measure(repetitions: int) -> dict[str, Rows]:
    """Panel → rows of (situation, method, rate in %, promised range of the rate)."""
    videos = {"50 videos × 10": fifty_videos(), "unequal videos": unequal_videos()}
    if REAL_DATA.is_dir():
        videos["TVBench videos"] = tvbench_videos(REAL_DATA)
    wrong, covered, verdicts, sweeps = [], [], [], []
    for name, sizes in videos.items():
        for discordance in (0.1, 0.2):
            design = Design(name, sizes, 0.3, discordance)
            situation = f"{name}, {discordance:.0%} flips"
            for method, rate in false_positives(design, repetitions).items():
                wrong.append((situation, method, rate, (4.0, 6.0)))
        for difference in (0.0, -0.02, -0.1):
            design = Design(name, sizes, 0.3, 0.2, difference)
            for method, rate in coverage(design, repetitions // 2, bootstrap=True).items():
                covered.append(
                    (f"{name}, true {difference * 100:+.0f}", method, rate, (94.0, 96.0))
                )
        rates = wrong_verdicts(Design(name, sizes, 0.3, 0.1, -0.02), repetitions)
        verdicts += [
            (name, f"says {verdict}", rates[verdict], (0.0, 5.0))
            for verdict in ("non-inferior", "inferior")
        ]
    rates = macro_errors(Design("", fifty_videos(), 0.3, 0.2), repetitions // 4)
    covered.append(("50 videos × 10, macro average", "default", rates["coverage"], (94.0, 96.0)))
    wrong.append(("50 videos × 10, macro average", "default", rates["false positives"], (4.0, 6.0)))
    for affected in (0, 9):
        situation = f"28 layers, {affected} with an effect"
        rates = sweep_errors(repetitions // 2, affected=affected)
        sweeps.append((situation, "max-T", rates["any false layer"], (0.0, 5.0)))
        sweeps.append((situation, "uncorrected", rates["any false layer, uncorrected"], (0.0, 5.0)))
    return {
        "false positives, no difference": wrong,
        "coverage of 95 % intervals": covered,
        "wrong verdicts at the margin": verdicts,
        "any false layer in a sweep": sweeps,
    }


def draw(panels: dict[str, Rows], path: Path) -> None:
    """Draws one panel per promise: dots are measured rates, the grey band is the promise."""
    heights = [len({row[0] for row in rows}) + 1 for rows in panels.values()]
    figure, axes = plt.subplots(
        len(panels), 1, figsize=(7.5, 0.28 * sum(heights) + 2.4), height_ratios=heights
    )
    for axis, (title, rows) in zip(axes, panels.items(), strict=True):
        situations = list(dict.fromkeys(row[0] for row in rows))
        axis.axvspan(*rows[0][3], color="0.88", zorder=0)
        for marker, method in zip("o|xs", dict.fromkeys(row[1] for row in rows), strict=False):
            mine = [row for row in rows if row[1] == method]
            axis.plot(
                [row[2] for row in mine],
                [situations.index(row[0]) for row in mine],
                marker,
                color=GREEN if method in PROMISED else RED if "unc" in method else BLUE,
                label=method,
            )
        axis.set_yticks(range(len(situations)), situations, fontsize=7)
        axis.set_ylim(len(situations) - 0.5, -0.5)
        axis.set_title(title + ", %", fontsize=8, loc="left")
        axis.tick_params(axis="x", labelsize=7)
        axis.legend(fontsize=6, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def table(panels: dict[str, Rows]) -> str:
    """A Markdown table with one row per promise and situation."""
    lines = ["| promise | situation | measured, % |", "|---|---|---|"]
    for title, rows in panels.items():
        low, high = rows[0][3]
        for situation in dict.fromkeys(row[0] for row in rows):
            rates = ", ".join(f"{row[1]} {row[2]:.1f}" for row in rows if row[0] == situation)
            lines.append(f"| {title}: {low:g}-{high:g} % | {situation} | {rates} |")
    return "\n".join(lines)


if __name__ == "__main__":
    measured = measure(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
    draw(measured, ROOT / "results" / "statistics" / "calibration.png")
    print(table(measured))

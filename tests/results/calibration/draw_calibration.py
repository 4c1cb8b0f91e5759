"""The calibration table and figure of the README, from the counts of `simulate.py`.

    python tests/results/calibration/draw_calibration.py [OUT]

With OUT, the folder of `simulate.py`, its counts are first gathered into measured.json. Writes
calibration.png and the Markdown tables of `results/statistics/README.md`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from settings import LIMIT, Setting, settings

MEASURED = Path(__file__).with_name("measured.json")
ROOM = Path(__file__).parents[3] / "results" / "statistics"
GREEN, RED, END = "#0b6e4f", "#b5484c", 14.0
Row = dict


def gather(folder: Path, measured: Path, known: list[Setting]) -> None:
    """Writes `measured` from one file per setting, in the order of the `known` settings."""
    found = [json.loads(file.read_text(encoding="utf-8")) for file in folder.glob("*.json")]
    order = {(one.panel, one.name): (i, one.held_out) for i, one in enumerate(known)}
    found.sort(key=lambda row: order[row["panel"], row["setting"]])
    for row in found:
        row["held_out"] = order[row["panel"], row["setting"]][1]
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in found)
    measured.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def rate(row: Row, name: str = "error") -> float:
    """How often an event happened, in percent."""
    return 100 * row["counts"].get(name, 0) / row["repetitions"]


def holds(row: Row) -> bool:
    """Whether the rate is within its limit, up to two Monte-Carlo standard errors."""
    share = LIMIT[row["panel"]] / 100
    slack = 2 * (share * (1 - share) / row["repetitions"]) ** 0.5
    return rate(row) <= 100 * (share + slack)


def summary(rows: list[Row]) -> str:
    """One row per panel: the range of rates, and how many settings hold."""
    lines = [
        "| error | limit, % | median, range, % | held-out settings, % | settings that hold |"
        " standard error |",
        "|---|---|---|---|---|---|",
    ]
    for panel, limit in LIMIT.items():
        own = [row for row in rows if row["panel"] == panel]
        if not own:
            continue
        new = [row for row in own if row["held_out"]]
        shown, held = (_range(sorted(map(rate, some))) for some in (own, new))
        error = 100 * (0.05 * 0.95 / min(row["repetitions"] for row in own)) ** 0.5
        lines.append(
            f"| {panel} | {limit:g} | {shown} | {held} |"
            f" {sum(map(holds, own))} of {len(own)} | {error:.2f} |"
        )
    return "\n".join(lines)


def _range(rates: list[float]) -> str:
    """The median and the range of sorted rates."""
    if not rates:
        return "–"
    return f"{rates[len(rates) // 2]:.1f}, {rates[0]:.1f}-{rates[-1]:.1f}"


def failures(rows: list[Row]) -> str:
    """The settings that do not hold, worst first."""
    broken = sorted((row for row in rows if not holds(row)), key=rate, reverse=True)
    lines = ["| does not hold | setting | measured, % |", "|---|---|---|"]
    lines += [f"| {row['panel']} | {row['setting']} | {rate(row):.1f} |" for row in broken]
    return "\n".join(lines)


def named(rows: list[Row]) -> str:
    """Rates beside those of other methods, for the settings that the choices rest on."""
    lines = ["| setting | event | measured, % |", "|---|---|---|"]

    def add(panel: str, start: str, what: str, *names: tuple[str, str]) -> None:
        for row in rows:
            if row["panel"] == panel and row["setting"].startswith(start):
                shown = ", ".join(f"{label} {rate(row, name):.1f}" for label, name in names)
                lines.append(f"| {row['setting']} | {what} | {shown} |")

    panel = "false positives, no difference"
    size = (("default", "error"), ("exact McNemar", "exact McNemar"), ("robust t", "robust t"))
    others = ("exact McNemar", "robust t")
    power = (("default", "power"), *((name, f"power, {name}") for name in others))
    for start in ("100 questions", "1,000 questions"):
        add(panel, start, "false positives", *size)
        add(panel, start, "power at half of the flips", *power)
    families = (("default", "error"), ("uncorrected", "uncorrected"))
    add("ten treatments at the margin", "", 'any wrong "non-inferior"', *families)
    for seeds in (2, 3, 5):
        start = f"2,500 questions, {seeds} seeds"
        add("several seeds as one condition", start, "false positives", ("default", "error"))
    verdicts = (("macro", "non-inferior"), ("micro", "micro non-inferior"))
    for row in rows:
        if row["panel"] == "macro average over subtasks" and not row["held_out"]:
            counts = row["counts"]
            wide = counts["width, hundredths of a point"]
            ratio = wide / counts["micro width, hundredths of a point"]
            shown = ", ".join(f"{label} {rate(row, name):.1f}" for label, name in verdicts)
            lines.append(
                f"| {row['setting']} | macro: misses, width over micro's, says non-inferior |"
                f" {rate(row):.1f}; {ratio:.2f}; {shown} |"
            )
    return "\n".join(lines)


def draw(rows: list[Row], path: Path) -> None:
    """One panel per kind of error: a dot per setting, hollow if held out, and the limit."""
    import matplotlib.pyplot as plt

    panels = [panel for panel in LIMIT if any(row["panel"] == panel for row in rows)]
    figure, axes = plt.subplots(len(panels), 1, figsize=(7.5, 1.0 * len(panels) + 0.8), sharex=True)
    for axis, panel in zip(axes, panels, strict=True):
        own = sorted((row for row in rows if row["panel"] == panel), key=rate)
        axis.axvspan(0, LIMIT[panel], color="0.92", zorder=0)
        for held_out, face in ((False, None), (True, "none")):
            dots = [(i, row) for i, row in enumerate(own) if row["held_out"] == held_out]
            axis.scatter(
                [min(rate(row), END) for _, row in dots],
                [i / max(1, len(own) - 1) for i, _ in dots],
                s=14,
                linewidths=0.8,
                edgecolors=[GREEN if holds(row) else RED for _, row in dots],
                facecolors=face or [GREEN if holds(row) else RED for _, row in dots],
            )
        axis.set_title(f"{panel} ({len(own)} settings)", fontsize=8, loc="left")
        axis.set_yticks([])
        axis.set_ylim(-0.15, 1.15)
        axis.tick_params(axis="x", labelsize=7)
        axis.spines[["top", "right", "left"]].set_visible(False)
    axes[-1].set_xlabel(
        "measured rate, % (filled: developed on; hollow: held out; beyond 14 at the edge)",
        fontsize=8,
    )
    axes[-1].set_xlim(0, END + 0.2)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    if len(sys.argv) > 1:
        gather(Path(sys.argv[1]), MEASURED, settings())
    rows = json.loads(MEASURED.read_text(encoding="utf-8"))
    draw(rows, ROOM / "calibration.png")
    print(summary(rows), failures(rows), named(rows), sep="\n\n")


if __name__ == "__main__":
    main()

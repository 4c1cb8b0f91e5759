"""What is simulated, and what counts as holding; both were fixed before any number was measured.

A setting with `held_out` was used in no choice between methods: other numbers of questions, other
numbers and sizes of videos, other correlations, and another way to draw correlated answers. For
accuracies, the correlations and the other way were seen while the method was chosen, and only other
videos are held out.

What holds, up to Monte-Carlo error (two standard errors):

- false positives and coverage: at most 6 % of p-values below 0.05 at the true difference, so at
  least 94 % coverage; intervals over fewer changed videos may cover more;
- a wrong verdict at the margin: at most 5 % of comparisons, in either direction;
- ten treatments at the margin: any wrong "non-inferior" in at most 5 % of families;
- sweeps: any false layer in at most 5 %.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from simulated_runs import Videos, tvbench_videos, videos

LIMIT = {
    "false positives, no difference": 6.0,
    "intervals that miss the true difference": 6.0,
    "wrong verdicts at the margin": 5.0,
    "ten treatments at the margin": 5.0,
    "several seeds as one condition": 6.0,
    "macro average over subtasks": 6.0,
    "intervals of an accuracy that miss it": 6.0,
    "any false layer in a sweep": 5.0,
}
"""Panel → largest rate in percent that counts as holding."""


@dataclass(frozen=True)
class Setting:
    """One simulation: `panel` chooses the measurement, `values` are its parameters."""

    panel: str
    name: str
    shape: Videos
    held_out: bool = False
    values: dict = field(default_factory=dict)

    @property
    def key(self) -> str:
        return f"{self.panel}: {self.name}"


UNEQUAL = {
    "15 unequal videos": Videos((1, 1, 2, 2, 3, 3, 4, 5, 6, 8, 10, 12, 15, 20, 30)),
    "30 unequal videos": videos((10, 1), (6, 2), (5, 4), (4, 8), (3, 15), (1, 30), (1, 40)),
    "44 unequal videos": videos((20, 1), (10, 3), (8, 6), (4, 12), (2, 25)),
    "597 unequal videos": videos((400, 1), (120, 2), (40, 3), (24, 5), (12, 8), (1, 30)),
}
EQUAL = {f"{m} videos × 10": videos((m, 10)) for m in (15, 30, 44, 50)}
CLUSTERED = {**EQUAL, **UNEQUAL, "TVBench's videos": tvbench_videos()}
ALONE = {f"{n:,} questions": videos((n, 1)) for n in (100, 1000)}
OTHER = {
    "20 videos × 6": videos((20, 6)),
    "36 unequal videos": videos((12, 2), (12, 5), (12, 11)),
    "80 videos × 4": videos((80, 4)),
    "200 unequal videos": videos((150, 2), (40, 7), (10, 16)),
}
OTHER_ALONE = {f"{n:,} questions": videos((n, 1)) for n in (250, 2525)}


def settings() -> list[Setting]:
    found: list[Setting] = []

    def add(panel: str, name: str, shape: Videos, held_out: bool = False, **values: object) -> None:
        found.append(Setting(panel, name, shape, held_out, dict(values)))

    differences = {
        "false positives, no difference": 0.0,
        "wrong verdicts at the margin": -0.02,
        "intervals that miss the true difference": -0.1,
    }
    for panel, true in differences.items():
        for name, shape in {**ALONE, **OTHER_ALONE}.items():
            for flips in (0.01, 0.02, 0.05, 0.1, 0.2):
                if flips >= abs(true):
                    values = {"correlation": 0.0, "flips": flips, "true": true}
                    add(panel, f"{name}, {flips:.0%} flips", shape, name in OTHER_ALONE, **values)
        for name, shape in {**CLUSTERED, **OTHER}.items():
            for flips in (0.05, 0.1, 0.2):
                for how, correlation in (("copied", 0.3), ("copied", 0.1), ("drawn", 0.6)):
                    new = name in OTHER or correlation != 0.3
                    if flips < abs(true) or (new and flips == 0.05):
                        continue
                    title = f"{name}, ICC {correlation:g}, {flips:.0%} flips"
                    values = {"correlation": correlation, "flips": flips, "true": true, "how": how}
                    add(panel, title, shape, new, **values)
    for name, shape in {
        "1,000 questions": ALONE["1,000 questions"],
        "50 videos × 10": EQUAL["50 videos × 10"],
        "597 unequal videos": UNEQUAL["597 unequal videos"],
        "TVBench's videos": tvbench_videos(),
        **OTHER,
        **OTHER_ALONE,
    }.items():
        new = name in OTHER or name in OTHER_ALONE
        for flips in (0.05, 0.1):
            correlation = 0.6 if name in OTHER else 0.3 * (max(shape.sizes) > 1)
            values = {"correlation": correlation, "flips": flips}
            title = f"{name}{f', ICC {correlation:g}' if correlation else ''}, {flips:.0%} flips"
            add("ten treatments at the margin", title, shape, new, **values)
    for name, shape in {
        "2,500 questions": videos((2500, 1)),
        "50 videos × 10": EQUAL["50 videos × 10"],
        "600 questions": videos((600, 1)),
        "36 unequal videos": OTHER["36 unequal videos"],
    }.items():
        for seeds in (2, 3, 4, 5):
            for spread in (0.0, 0.005, 0.01, 0.02, 0.04):
                new = name in ("600 questions", "36 unequal videos") or seeds == 4
                new |= spread in (0.005, 0.04)
                title = f"{name}, {seeds} seeds, {100 * spread:g} points between them"
                values = {"seeds": seeds, "spread": spread}
                add("several seeds as one condition", title, shape, new, **values)
    tasks = {
        "TVBench's videos": tvbench_videos(),
        "10 subtasks × 100 questions": Videos((1,) * 1000, tuple(i // 100 for i in range(1000))),
        "4 subtasks × 12 videos × 10": Videos((10,) * 48, tuple(i // 12 for i in range(48))),
        "8 subtasks of 20 to 160 videos": Videos(
            (2,) * 720, tuple(k for k in range(8) for _ in range(20 * (k + 1)))
        ),
    }
    for name, shape in tasks.items():
        for flips, true in ((0.02, 0.0), (0.02, -0.02), (0.1, 0.0), (0.1, -0.02), (0.2, -0.1)):
            for correlation in (0.3, 0.6) if max(shape.sizes) > 1 else (0.0,):
                new = name.startswith("8") or correlation == 0.6
                icc = f", ICC {correlation:g}" if correlation else ""
                title = f"{name}{icc}, {flips:.0%} flips, true {100 * true:+g}"
                values = {"correlation": correlation, "flips": flips, "true": true}
                add("macro average over subtasks", title, shape, new, **values)
    for name, shape in {**CLUSTERED, **OTHER}.items():
        for how, correlation in (("copied", 0.3), ("copied", 0.1), ("drawn", 0.6)):
            for share in (0.3, 0.5, 0.8, 0.95):
                new = name in OTHER
                title = f"{name}, ICC {correlation:g}, accuracy {share:.0%}"
                values = {"correlation": correlation, "share": share, "how": how}
                add("intervals of an accuracy that miss it", title, shape, new, **values)
    for affected in (0, 9):
        title = f"28 layers, {affected} with an effect"
        add("any false layer in a sweep", title, EQUAL["50 videos × 10"], affected=affected)
    return found

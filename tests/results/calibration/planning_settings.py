"""What is simulated of probabilities, interactions and power, and what counts as holding.

Limits and settings were fixed before these numbers were measured. But smaller simulations of some
settings had been looked at while the methods were chosen; those with `held_out` had not: other
numbers of questions, other numbers and sizes of videos, other correlations.

What holds, up to two Monte-Carlo standard errors:

- changes of a probability, and interactions: at most 6 % of p-values below 0.05 without a true
  effect, and at most 6 % of intervals that miss a true interaction;
- power: the predicted share of verdicts is at most 5 points from the simulated one.
"""

from __future__ import annotations

from settings import EQUAL, OTHER, OTHER_ALONE, UNEQUAL, Setting
from simulated_runs import Videos, tvbench_videos, videos

EXCHANGEABLE = "changes of a probability, exchangeable runs"
SKEWED = "changes of a probability, few lose much and others gain"
NO_INTERACTION = "interactions, none in truth"
INTERACTION = "interactions, intervals that miss the true one"
POWER = "power, predicted and simulated"

LIMIT = {EXCHANGEABLE: 6.0, SKEWED: 6.0, NO_INTERACTION: 6.0, INTERACTION: 6.0}
"""Panel → largest rate in percent that counts as holding."""
POINTS = 5.0
"""Largest distance of a predicted power from the simulated one, in points."""

SAME = {
    "5 % flips, half lost": ((0.05, 0.05), (0.5, 0.5)),
    "5 %, 90 % lost": ((0.05, 0.05), (0.9, 0.9)),
    "20 %, half lost": ((0.2, 0.2), (0.5, 0.5)),
    "20 %, 90 % lost": ((0.2, 0.2), (0.9, 0.9)),
}
"""Title → each model's share of flips, and the share of them that are losses."""
APART = {
    "true -6": ((0.1, 0.1), (0.5, 0.8)),
    "true +16": ((0.2, 0.2), (0.9, 0.5)),
}

LOOKED_AT = ((0.03, 0.0), (0.08, 0.0), (0.08, 0.02))
"""(flips, true difference) of the large designs that had been looked at."""


def planning_settings() -> list[Setting]:
    found: list[Setting] = []

    def add(panel: str, name: str, shape: Videos, held_out: bool, **values: object) -> None:
        found.append(Setting(panel, name, shape, held_out, dict(values)))

    shapes = [
        *((f"{n} questions", videos((n, 1)), 0.0, False) for n in (20, 100)),
        *(
            (f"{m} videos × {size}, ICC {correlation:g}", videos((m, size)), correlation, False)
            for m, size in ((15, 10), (30, 10), (500, 2))
            for correlation in (0.0, 0.3)
        ),
        *((name, shape, 0.0, True) for name, shape in OTHER_ALONE.items()),
        *(
            (f"{name}, ICC {correlation:g}", shape, correlation, True)
            for name, shape in OTHER.items()
            for correlation in (0.1, 0.6)
        ),
    ]
    for name, shape, correlation, new in shapes:
        for panel in (EXCHANGEABLE, SKEWED):
            add(panel, name, shape, new, correlation=correlation)
    shapes = [
        *((f"{n} questions", videos((n, 1)), 0.0, False) for n in (100, 400)),
        ("15 videos × 10, ICC 0", EQUAL["15 videos × 10"], 0.0, False),
        ("15 videos × 10, ICC 0.3", EQUAL["15 videos × 10"], 0.3, False),
        ("40 videos × 10, ICC 0", videos((40, 10)), 0.0, False),
        ("40 videos × 10, ICC 0.3", videos((40, 10)), 0.3, False),
        *((name, shape, 0.0, True) for name, shape in OTHER_ALONE.items()),
        *((f"{name}, ICC 0.6", shape, 0.6, True) for name, shape in OTHER.items()),
        ("597 unequal videos, ICC 0.1", UNEQUAL["597 unequal videos"], 0.1, True),
    ]
    for panel, models in ((NO_INTERACTION, SAME), (INTERACTION, APART)):
        for name, shape, correlation, new in shapes:
            for title, (flips, losses) in models.items():
                values = {"correlation": correlation, "flips": flips, "losses": losses}
                add(panel, f"{name}, {title}", shape, new, **values)
    large = [
        ("2,000 questions", videos((2000, 1)), 0.0),
        ("3,000 questions", videos((3000, 1)), 0.0),
        ("300 videos × 6, ICC 0.2", videos((300, 6)), 0.2),
        ("650 unequal videos, ICC 0.3", videos((100, 8), (150, 4), (400, 1)), 0.3),
    ]
    planned = [
        *((*one, flips, true, False) for one in large for flips, true in LOOKED_AT),
        ("100 questions", videos((100, 1)), 0.0, 0.02, 0.02, False),
        ("150 questions", videos((150, 1)), 0.0, 0.08, -0.06, False),
        *(
            (name, shape, correlation, flips, true, True)
            for name, shape, correlation in (
                ("2,525 questions", OTHER_ALONE["2,525 questions"], 0.0),
                ("TVBench's videos, ICC 0.6", tvbench_videos(), 0.6),
                ("200 unequal videos, ICC 0.3", OTHER["200 unequal videos"], 0.3),
                ("80 videos × 4, ICC 0.3", OTHER["80 videos × 4"], 0.3),
            )
            for flips, true in ((0.05, 0.0), (0.1, -0.01), (0.15, 0.03), (0.2, -0.05))
        ),
        *(
            ("250 questions", OTHER_ALONE["250 questions"], 0.0, flips, true, True)
            for flips, true in ((0.02, 0.0), (0.04, -0.04), (0.1, 0.05))
        ),
    ]
    for name, shape, correlation, flips, true, new in planned:
        title = f"{name}, {100 * flips:g} % flips, true {100 * true:+g}"
        values = {"correlation": correlation, "flips": flips, "true": true}
        add(POWER, title, shape, new, **values)
    return found

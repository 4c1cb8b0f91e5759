"""The promised error rates, measured again on a few of the simulated settings.

Random numbers follow from the settings' names, so rates are reproducible.
"""

import json
from collections import Counter

import numpy as np
import pytest
from error_rates import measure
from planning_settings import EXCHANGEABLE, planning_settings
from planning_tables import MEASURED
from settings import LIMIT, Setting, settings
from simulate import CHUNK, chunk

pytestmark = pytest.mark.slow

CHOSEN = {
    "false positives, no difference": [
        "1,000 questions, 10% flips",
        "50 videos × 10, ICC 0.3, 10%",
    ],
    "wrong verdicts at the margin": [
        "1,000 questions, 5% flips",
        "597 unequal videos, ICC 0.3, 10%",
    ],
    "intervals that miss the true difference": ["30 videos × 10, ICC 0.3, 20% flips"],
    "ten treatments at the margin": ["1,000 questions, 10% flips"],
    "several seeds as one condition": ["2,500 questions, 3 seeds, 2 points"],
    "macro average over subtasks": ["10 subtasks × 100 questions, 10% flips, true -2"],
    "intervals of an accuracy that miss it": ["15 unequal videos, ICC 0.3, accuracy 50%"],
    "any false layer in a sweep": ["28 layers, 9 with an effect"],
}
FEW = {"any false layer in a sweep": 150, "several seeds as one condition": 400}


def chosen() -> list[Setting]:
    return [
        one for one in settings() if any(one.name.startswith(n) for n in CHOSEN.get(one.panel, ()))
    ]


@pytest.mark.parametrize("setting", chosen(), ids=lambda one: one.key)
def test_a_setting_holds(setting: Setting):
    repetitions = FEW.get(setting.panel, 1200)
    counts = measure(setting, repetitions, np.random.default_rng(0))
    rate, limit = counts["error"] / repetitions, LIMIT[setting.panel] / 100
    assert rate <= limit + 2 * (limit * (1 - limit) / repetitions) ** 0.5, counts
    assert counts["error"] > 0, "a test without errors would never claim anything"


def test_every_panel_is_tried():
    assert {one.panel for one in chosen()} == set(LIMIT) == {one.panel for one in settings()}


def test_a_second_run_gives_the_same_counts():
    name = "20 questions"
    (setting,) = (
        one for one in planning_settings() if (one.panel, one.name) == (EXCHANGEABLE, name)
    )
    (row,) = (
        one
        for one in json.loads(MEASURED.read_text(encoding="utf-8"))
        if (one["panel"], one["setting"]) == (EXCHANGEABLE, name)
    )
    counts: Counter[str] = Counter()
    for number in range(row["repetitions"] // CHUNK):
        counts.update(chunk(setting, number, CHUNK))
    assert dict(counts) == row["counts"]

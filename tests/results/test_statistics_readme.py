"""The statistics' page shows what the code computes."""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "results" / "statistics" / "README.md"


def test_the_table_of_published_claims_is_the_computed_one(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "calibration"))
    from published_claims import claims_table

    assert claims_table() in PAGE.read_text(encoding="utf-8")
    del sys.modules["published_claims"]


def test_the_tables_of_the_calibration_are_those_of_the_counts(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "calibration"))
    from draw_calibration import MEASURED, failures, holds, named, summary
    from settings import LIMIT, settings

    rows = json.loads(MEASURED.read_text(encoding="utf-8"))
    text = PAGE.read_text(encoding="utf-8")
    for table in (summary(rows), failures(rows), named(rows)):
        assert table in text
    assert {row["panel"] for row in rows} == set(LIMIT)
    known = {(one.panel, one.name): one.held_out for one in settings()}
    assert all(known[row["panel"], row["setting"]] == row["held_out"] for row in rows)
    for panel in ("ten treatments at the margin", "several seeds as one condition"):
        assert all(holds(row) for row in rows if row["panel"] == panel)
    for name in ("draw_calibration", "settings", "simulated_runs"):
        sys.modules.pop(name, None)


def test_the_tables_on_planning_are_those_of_the_counts(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "calibration"))
    from planning_tables import LIMIT, MEASURED, POWER, SKEWED, holds, planning_settings, tables

    rows = json.loads(MEASURED.read_text(encoding="utf-8"))
    text = PAGE.read_text(encoding="utf-8")
    assert all(table in text for table in tables(rows))
    assert f"{len(rows)} more settings" in text
    settings = [(one.panel, one.name, one.held_out) for one in planning_settings()]
    assert [(row["panel"], row["setting"], row["held_out"]) for row in rows] == settings
    assert all(holds(row) for row in rows if row["panel"] in set(LIMIT) - {SKEWED})
    assert sum(not holds(row) for row in rows if row["panel"] == POWER) == 2
    for name in ("planning_tables", "planning_settings", "draw_calibration", "settings"):
        sys.modules.pop(name, None)
    sys.modules.pop("simulated_runs", None)


def test_the_page_names_only_what_exists():
    from mapflow.results import statistics

    text = PAGE.read_text(encoding="utf-8")
    named = {
        name
        for line in text.splitlines()
        if line.startswith("| ")
        for name in line.split("`")[1::2]
    }
    functions = {name.rstrip("()") for name in named if name.endswith("()")}
    assert functions and functions <= set(statistics.__all__), functions - set(statistics.__all__)
    assert len(functions) > 15 and (PAGE.parent / "calibration.png").is_file()
    modules = {file.name for file in PAGE.parent.glob("*.py")} - {"__init__.py"}
    assert modules == set(re.findall(r"^\| `(\w+\.py)` \|", text, re.M))

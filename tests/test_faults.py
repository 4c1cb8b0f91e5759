"""The table of faults names tests that exist, each once."""

import ast
import re
from collections import Counter
from pathlib import Path

TESTS = Path(__file__).parent
NAMED = re.findall(r"`(\w+/\w+\.py)::(\w+)` \|", (TESTS / "FAULTS.md").read_text(encoding="utf-8"))


def test_every_row_names_a_test_that_exists():
    for file, name in NAMED:
        tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, (
            f"{file}::{name}"
        )


def test_every_row_has_a_test_of_its_own():
    rows = [
        line
        for line in (TESTS / "FAULTS.md").read_text(encoding="utf-8").splitlines()
        if "::" in line
    ]
    assert len(rows) == len(NAMED) >= 40
    assert max(Counter(NAMED).values()) == 1

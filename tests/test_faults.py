"""The tables of faults and of refusals name tests that exist, each once."""

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGES = {"FAULTS.md": 40, "RIGHT_OR_REFUSED.md": 0}  # page: the rows that it has at least


def _text(page: str) -> str:
    return (TESTS / page).read_text(encoding="utf-8")


def _named(page: str) -> list[tuple[str, str]]:
    return re.findall(r"`(\w+/\w+\.py)::(\w+)` \|", _text(page))


@pytest.mark.parametrize("page", PAGES)
def test_every_row_names_a_test_that_exists(page: str):
    for file, name in _named(page):
        tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, (
            f"{file}::{name}"
        )


@pytest.mark.parametrize("page", PAGES)
def test_every_row_has_a_test_of_its_own(page: str):
    rows = [line for line in _text(page).splitlines() if "::" in line]
    assert len(rows) == len(_named(page)) >= PAGES[page]
    assert max(Counter(_named(page)).values(), default=1) == 1

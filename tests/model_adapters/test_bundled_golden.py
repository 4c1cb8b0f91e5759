"""The numbers of the bundled model equal the committed ones."""

from __future__ import annotations

import json

import pytest

from tests.model_adapters.bundled_golden import FILE, INTERVENTIONS, QUESTIONS, lines


@pytest.fixture(scope="module")
def golden():
    return [json.loads(line) for line in FILE.read_text().splitlines()]


@pytest.fixture(scope="module")
def found():
    return list(lines())


def test_the_golden_numbers_are_of_this_checkpoint(golden, found):
    assert golden[0] == found[0], (
        "retrained, or asked otherwise: python -m tests.model_adapters.bundled_golden"
    )
    assert len(golden) == len(found) == 1 + 5 * QUESTIONS * len(INTERVENTIONS.split(";"))


def test_every_probability_is_the_committed_one(golden, found):
    for old, new in zip(golden[1:], found[1:], strict=True):
        assert new["options"] == pytest.approx(old["options"], abs=1e-5), (old, new)
        assert new["margin"] == pytest.approx(old["margin"], abs=1e-3), (old, new)
        exact = new.keys() - {"options", "margin"}
        assert {name: new[name] for name in exact} == {name: old[name] for name in exact}


def test_the_interventions_tell_themselves_apart(golden):
    """Golden numbers that are equal for all interventions would prove nothing."""
    by_question: dict[str, set[float]] = {}
    for line in golden[1:]:
        by_question.setdefault(line["question"], set()).add(line["margin"])
    assert all(len(different) == 4 for different in by_question.values())

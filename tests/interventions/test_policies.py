"""Every registered policy keeps the registry's promises, and parsing needs no torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mapflow.model_adapters import interventions
from mapflow.model_adapters.interventions import Intervention, TokenLayout, parse_intervention
from mapflow.model_adapters.interventions.language.layout import example_layout
from mapflow.model_adapters.interventions.language.pathways import PathwayRanges
from mapflow.model_adapters.interventions.language.policies import (
    POLICIES,
    Cut,
    EarlyExit,
    Effective,
    Knockout,
    Policy,
    RandomBlocking,
)

RANGES = "cross_frame=2-3,video_to_question=2-4,question_to_last=4-5"
FORMS: dict[type[Policy], list[str]] = {
    Effective: ["effective", "effective-strict", f"effective:{RANGES}", "effective:scale=X-7B"],
    RandomBlocking: ["random", "random:ratio=0.58,seed=3", "random:scale=X-7B,seed=0"],
    Knockout: [
        "knockout:video->last@center=3,window=2",
        "knockout:cross-frame@inverse=1",
        "knockout:stem:last@top-down=2",
        "knockout:all->last@bottom-up=2",
    ],
    EarlyExit: ["early-exit@3", "early-exit @ 04"],
    Cut: ["video->question@2-4", "cross-frame", "option[0]→last@5", "last:last@2"],
}
CASES = [(policy, text) for policy, texts in FORMS.items() for text in texts]


def test_every_registered_policy_has_forms_here():
    assert set(FORMS) == set(POLICIES), "add the new policy's one-line forms to FORMS"
    for policy in POLICIES:
        assert all(any(text.startswith(name) for text in FORMS[policy]) for name in policy.names)


@pytest.mark.parametrize(("policy", "text"), CASES)
def test_the_one_line_form_parses_back(policy, text):
    parsed = parse_intervention(text)
    assert [type(one) for one in parsed.policies] == [policy]
    assert parse_intervention(str(parsed)) == parsed
    assert sum(one.claims(text) for one in POLICIES if one is not Cut) == (policy is not Cut)


@pytest.mark.parametrize(("policy", "text"), CASES)
def test_the_cuts_have_one_matrix_per_layer_over_segments(policy, text):
    own = PathwayRanges.from_mapping(dict(one.split("=") for one in RANGES.split(",")), "test")
    resolved = parse_intervention(text).resolve(lambda name, depth: own, 6)
    layout: TokenLayout = example_layout(2, 3)
    (found,) = resolved.policies
    n_segments = len(layout.segments)
    assert found.cuts(layout, 6, own).shape == (6, n_segments, n_segments)
    assert resolved.describe(own) == Intervention((found.with_ranges(own),)).expression


def test_parsing_imports_neither_torch_nor_transformers():
    program = """
import sys
from mapflow.model_adapters.interventions.language.grammar import parse_interventions
from mapflow.model_adapters.interventions import parse_intervention
parse_interventions(["effective,random:seed=3,video->last@2"])
print(sorted({"torch", "transformers"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_every_name_of_the_instrument_can_be_imported():
    assert all(hasattr(interventions, name) for name in interventions.__all__)
    assert not hasattr(interventions, "no_such_name")

"""The JSON schemas in docs/schema are those of the types that files are checked against.

python -m tests.results.test_schemas    writes them
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from mapflow.harness.analyses.registry import question_analyses
from mapflow.model_adapters.interventions.language.grammar import Form
from mapflow.results.records.base import line_type
from mapflow.results.records.record import Record
from mapflow.results.runs.asked import ASKED, Entry
from mapflow.results.runs.manifest import MANIFEST, Manifest

FOLDER = Path(__file__).parents[2] / "docs" / "schema"
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schemas() -> dict[str, str]:
    """File → its text."""
    kinds = [Record, *(one.RECORD for one in question_analyses().values())]
    types: dict[str, tuple[Any, str]] = {
        kind.FILE.replace(".jsonl", ".schema.json"): (
            line_type(kind),
            f"One line of {kind.FILE}. {(kind.__doc__ or '').partition('.')[0]}.",
        )
        for kind in kinds
    }
    types["manifest.schema.json"] = Manifest, f"{MANIFEST} of a folder; other entries are free."
    types["asked.schema.json"] = dict[str, Entry], f"{ASKED}: which questions a folder reports."
    types["interventions.schema.json"] = (
        dict[str, str | Form],
        "A file of interventions: names, each with a one-line form or one of these entries.",
    )
    return {
        name: json.dumps(
            {
                "$schema": DIALECT,
                "description": " ".join(said.split()),
                **msgspec.json.schema(kind),
            },
            indent=2,
        )
        + "\n"
        for name, (kind, said) in types.items()
    }


def test_the_published_schemas_are_current():
    """`python -m tests.results.test_schemas` writes them."""
    assert {one.name: one.read_text() for one in FOLDER.glob("*.json")} == schemas()


@pytest.mark.parametrize("name", ["records", "sweep", "trace", "lens", "attention"])
def test_lines_of_earlier_versions_and_of_today_fit_their_schema(name):
    schema = json.loads((FOLDER / f"{name}.schema.json").read_text())
    validator = jsonschema.Draft202012Validator(schema)
    earlier = Path(__file__).parents[1] / "harness" / "earlier_runs"
    folder = "run" if name == "records" else name
    lines = (earlier / folder / f"{name}.jsonl").read_text().splitlines()
    for line in lines:
        validator.validate(json.loads(line))
        validator.validate({**json.loads(line), "run": "0123456789ab"})
        assert not validator.is_valid({**json.loads(line), "more": 1})
        assert not validator.is_valid({**json.loads(line), "task": None})
    manifest = json.loads((FOLDER / "manifest.schema.json").read_text())
    jsonschema.validate(json.loads((earlier / folder / "manifest.json").read_text()), manifest)


def test_a_file_of_interventions_fits_its_schema():
    schema = json.loads((FOLDER / "interventions.schema.json").read_text())
    jsonschema.validate({"mine": "video->last@3", "two": {"cut": ["video->last"]}}, schema)
    jsonschema.validate({"three": {"effective": {"cross_frame": 6}}}, schema)
    for wrong in ({"mine": 3}, {"mine": {"cut": "video->last"}}, {"mine": {"keep": [3]}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


if __name__ == "__main__":
    for name, text in schemas().items():
        (FOLDER / name).write_text(text)

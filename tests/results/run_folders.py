"""Small run folders for tests: written by the code that writes real ones."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mapflow.results.records.record import Record
from mapflow.results.runs.folder import RunFolder
from tests.results.records import a_record

IDENTITY = {
    "model": "mapflow_llava",
    "checkpoint": "tiny",
    "digest": "0123456789abcdef" * 4,
    "protocol": "paper",
    "dtype": "float32",
    "versions": {"torch": "2.0", "mapflow": "0.1"},
}


def answers(intervention: str, correct: Sequence[int | None], **changes: Any) -> list[Record]:
    """One record a question, two questions a video; None stands for a question that could not be
    asked."""
    chosen = {"question_id": "tvbench/one/{:04d}", **changes}
    found = []
    for i, right in enumerate(correct):
        own = {
            name: value.format(i) if isinstance(value, str) else value
            for name, value in chosen.items()
        }
        if right is None:
            own |= {"error": "no video", "correct": None, "valid": None, "prediction": None}
        else:
            own |= {"correct": bool(right), "prediction": "A" if right else "B"}
        found.append(a_record(i, intervention, **own))
    return found


def write_run(
    folder: Path,
    records: Sequence[Record],
    *,
    identity: Mapping[str, Any] | None = None,
    **about: Any,
) -> Path:
    """A finished run; its manifest names the interventions in order of appearance."""
    named = {record.intervention: f"{record.intervention} in full" for record in records}
    run = RunFolder(
        folder, {**IDENTITY, **(identity or {})}, {"interventions": named, "device": "cpu", **about}
    )
    run.append(records)
    return folder

"""Small run folders for tests: written by the code that writes real ones."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mapflow.results.records.attention import PARTS, AttentionRecord
from mapflow.results.records.lens import LensRecord
from mapflow.results.records.record import Record
from mapflow.results.records.sweep import SweepRecord
from mapflow.results.records.trace import TraceRecord
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


ABOUT = {"interventions": {"full": "full", "effective": "layers 2-6"}, "device": "cpu"}
RUN_RECORDS = [
    *answers("full", [1, 0, 1, 1, None, 1]),
    *answers("effective", [1, 0, 0, 1, 1, 0]),
]


def analysis_records(question):
    """One record of each kind of analysis."""
    ids = (f"tvbench/one/{question:04d}", f"one/{question // 2}.mp4", "t_one")
    shares = {part: (0.2, 0.1) for part in PARTS}
    sweep = SweepRecord(
        *ids, "video->last", "center", 1, "paper", 2, "A", "A", True, 0.5, 0.5, 0.1,
        (0.5, 0.4), (0.5, 0.4), (0.0, -20.0), (0.0, -20.0), ("A", "B"), (True, False),
    )  # fmt: skip
    trace = TraceRecord(
        *ids, "full", "paper", True, False, "A", "A", (0.1, 0.2), (0.1, 0.2),
        {"A": (0.1, 0.2), "B": (0.3, 0.4)}, ("B",), ("A", "B"),
    )  # fmt: skip
    lens = LensRecord(
        *ids, "full", "paper", False, (0,), ([[1]], [[2]]), ([[0.5]], [[0.5]]),
        {"1": "left", "2": "x"},
    )  # fmt: skip
    attention = AttentionRecord(
        *ids, "full", "paper", "last", 1, (0,), ([0.1], [0.2]), ([0.1], [0.2]), shares
    )
    return sweep, trace, lens, attention


KINDS = tuple(type(one) for one in analysis_records(0))


def write_folder(folder, kind=None, identity=IDENTITY):
    """A folder of a run, or of the analysis whose records are of `kind`."""
    records = RUN_RECORDS
    if kind:
        records = [analysis_records(question)[KINDS.index(kind)] for question in range(4)]
    run = RunFolder(folder, identity, ABOUT, *([kind] if kind else []))
    run.note_asked([(one.task, one.question_id) for one in records], {"t_one": 6})
    run.append(records)
    (folder / "summary.json").write_text("{}")
    return folder

"""What an export holds: runs by benchmark, their records, the tests against the baseline, texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import Question
from mapflow.results.records.base import JsonlRecord
from mapflow.results.records.record import Record
from mapflow.results.runs.run import Run
from mapflow.results.tables.comparison import ComparedPair, compare_groups, corrected


@dataclass(frozen=True)
class Exported:
    """One place, as every format takes it.

    Attributes:
        place: a run folder or log.
        groups: one list of runs per benchmark, the baseline first; empty for formats of records.
        records: one per question and intervention (or route), sorted.
        manifest: what was run.
        questions: question id → its text and options, as far as they are on this machine.
        datasets: benchmark → its data set on the Hugging Face Hub, where there is one.
        margin: of the verdicts of non-inferiority, as a fraction.
    """

    place: Path
    groups: Sequence[Sequence[Run]]
    records: Sequence[JsonlRecord]
    manifest: Mapping[str, Any]
    questions: Mapping[str, Question] = field(default_factory=dict)
    datasets: Mapping[str, str] = field(default_factory=dict)
    margin: float = 0.02

    @cached_property
    def pairs(self) -> list[ComparedPair]:
        """Every run against the baseline of its benchmark, corrected as in `mapflow compare`."""
        return corrected([pair for pairs, _ in self._compared for pair in pairs])

    @cached_property
    def unpaired(self) -> dict[str, str]:
        """Benchmark → why its runs cannot be compared, e.g. as all questions share one video."""
        found = zip(self.groups, self._compared, strict=True)
        return {group[0].benchmark: reason for group, (_, reason) in found if reason}

    @cached_property
    def _compared(self) -> list[tuple[list[ComparedPair], str]]:
        """The comparisons of each benchmark, or the reason why there are none."""
        return [_compare(group, self.margin) for group in self.groups]

    def records_of(self, run: Run) -> list[Record]:
        """The records of one run, in the order of its questions."""
        own = {
            record.question_id: record
            for record in self.records
            if isinstance(record, Record)
            and (record.intervention, record.benchmark) == (run.intervention, run.benchmark)
        }
        return [own[one] for one in run.question_id.tolist()]

    @property
    def written(self) -> datetime:
        """When the newest file of the place was last written: the end of the run."""
        files = [self.place] if self.place.is_file() else list(self.place.glob("*.json*"))
        newest = max((file.stat().st_mtime for file in files or [self.place]), default=0.0)
        return datetime.fromtimestamp(int(newest), timezone.utc)

    @property
    def tool(self) -> tuple[str, str]:
        """The name and version of what ran the model."""
        versions = (self.manifest.get("identity") or {}).get("versions") or {}
        tool = str(self.manifest.get("logged_by") or "mapflow")
        package = {"lm-evaluation-harness": "lm-eval", "Inspect": "inspect_ai"}.get(tool, tool)
        return package, str(versions.get(package) or "unknown")


def _compare(group: Sequence[Run], margin: float) -> tuple[list[ComparedPair], str]:
    try:
        return compare_groups([group] if len(group) > 1 else [], margin=margin), ""
    except MapflowError as error:
        return [], str(error)

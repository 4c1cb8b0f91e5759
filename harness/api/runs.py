"""Finished runs as data: records and comparisons as pandas data frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from mapflow.harness.analyses.registry import question_analyses
from mapflow.harness.cli.chosen_runs import compared_runs
from mapflow.results.contract.errors import MapflowError
from mapflow.results.exchange.frames import data_frame
from mapflow.results.logs.readers import read_logs
from mapflow.results.records.base import JsonlRecord
from mapflow.results.records.record import Record
from mapflow.results.runs.folder import read_records
from mapflow.results.runs.manifest import read_manifest
from mapflow.results.tables.comparison import all_differ, compare_groups, comparison_tables
from mapflow.results.tables.formats import Table, html_table, render

if TYPE_CHECKING:
    import pandas

R = TypeVar("R", bound=JsonlRecord)


class RunRecords(Generic[R]):
    """The records of one folder, sorted by question and intervention or route.

    Attributes: `folder`; `records`; `manifest`, what was run (model, weights, protocol, versions).
    """

    def __init__(
        self, folder: Path, records: Sequence[R], manifest: Mapping[str, Any] | None = None
    ) -> None:
        self.folder, self.records = folder, list(records)
        self.manifest = manifest or read_manifest(folder)

    def to_pandas(self) -> pandas.DataFrame:
        """One row per record, one column per field."""
        return data_frame(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        kind = type(self.records[0]).__name__ if self.records else "no records"
        return f"<RunRecords {str(self.folder)!r}: {len(self)} × {kind}>"

    def _repr_html_(self) -> str:
        return self.to_pandas()._repr_html_()  # pyright: ignore[reportCallIssue]


def read_run(folder: str | Path) -> RunRecords[JsonlRecord]:
    """The records of a run or analysis folder, or of another tool's logs as `compare` takes them.

    Raises MapflowError if the folder holds no records, or those of several kinds.
    """
    path = Path(folder).expanduser()
    known_kinds = [Record, *(one.RECORD for one in question_analyses().values())]
    kinds = [kind for kind in known_kinds if (path / kind.FILE).is_file()]
    if not kinds and path.exists() and (logged := read_logs(path)):
        return RunRecords(path, list(logged[1]), logged[0])
    if len(kinds) != 1:
        found = " and ".join(kind.FILE for kind in kinds) or "no records"
        known = ", ".join(kind.FILE for kind in known_kinds)
        raise MapflowError(f"folder {str(path)!r} holds {found}; expected one of {known}")
    return RunRecords(path, read_records(path, kinds[0]))


class Comparison:
    """A comparison of runs, one row per pair.

    Attributes: `table`, a data frame of raw values (shares as fractions, intervals, p-values,
    verdicts); `sentences`, one per comparison, with the notes below the table.
    """

    def __init__(self, tables: Sequence[Table]) -> None:
        self._tables = list(tables)
        self.sentences = [note for table in self._tables for note in table.notes]

    @property
    def table(self) -> pandas.DataFrame:
        import pandas

        return pandas.DataFrame([row for table in self._tables for row in table.records()])

    def __repr__(self) -> str:
        return render(self._tables, "terminal")

    def _repr_html_(self) -> str:
        notes = "".join(f"<p>{escape(sentence)}</p>" for sentence in self.sentences)
        return "".join(map(html_table, self._tables)) + notes


def compare(
    *runs: str | Path,
    baseline: str | None = None,
    margin: float = 2.0,
    intersect: bool = False,
) -> Comparison:
    """Compares the interventions of one run folder, or several runs with the first.

    runs: folders, "folder:intervention", or logs of lmms-eval, lm-evaluation-harness or Inspect.
    baseline: an intervention of a single folder; by default its first one.
    margin: non-inferiority margin in percentage points.
    intersect: compare only the questions that the runs share, where their question sets differ.

    Raises MapflowError if a run is missing or ambiguous, or if question sets differ.
    """
    if not runs:
        raise MapflowError("name at least one run folder, e.g. mapflow.compare('RUN')")
    if not 0 < margin < 100:
        raise MapflowError(f"margin={margin:g} must lie between 0 and 100 points, e.g. margin=2")
    words = [str(run) for run in runs]
    groups, left_out = compared_runs(words, baseline, intersect=intersect)
    pairs = compare_groups(groups, margin=margin / 100, intersect=intersect)
    together = {
        group[0].benchmark: all_differ(group, intersect) for group in groups if len(group) > 2
    }
    return Comparison(comparison_tables(pairs, together, left_out))

"""The folder that one command writes: summary.json and the printed table.

Without an output path, records are kept in a temporary folder until the table is printed.
"""

from __future__ import annotations

import atexit
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from mapflow.harness.cli.early_checks import check_output_folder
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.files import file_name
from mapflow.results.contract.visible_text import counted
from mapflow.results.records.record import Record
from mapflow.results.runs.asked import read_asked, was_asked
from mapflow.results.runs.claim import Claim, claim
from mapflow.results.runs.folder import SUMMARY, sort_records, write_json
from mapflow.results.runs.manifest import read_manifest
from mapflow.results.runs.processes import processes
from mapflow.results.runs.provenance import uncut_note
from mapflow.results.runs.temporary import shared_temporary
from mapflow.results.tables.summary import Summary, summaries_json, summarize, summary_blocks
from mapflow.tasks.registry import benchmark_sizes, benchmark_titles

LOG = logging.getLogger(__name__)


class RunOutput:
    """`folder` holds the run's records: the output path, or a temporary folder without one.

    Raises MapflowError if the output path cannot be written, before the model is loaded.
    """

    def __init__(self, output_path: str | None) -> None:
        self._kept = output_path is not None
        self._claim: Claim | None = None
        if output_path is not None:
            self.folder = Path(output_path)
        else:
            self.folder, self._claim = _temporary_folder()
        if "," in str(self.folder):
            raise MapflowError(
                f"--output_path {str(self.folder)!r} must not contain a comma,"
                " which separates model_args; choose another folder"
            )
        check_output_folder(self.folder)

    def folder_of(self, intervention: str) -> Path:
        """Where lmms-eval writes the results and sample logs of one of several interventions."""
        return self.folder / "lmms_eval" / file_name(intervention)

    def check_written(self, date: str) -> None:
        """Raises MapflowError if lmms-eval's results of this `date` are missing.

        lmms-eval ignores errors while writing them.
        """
        if self._kept and not list(self.folder.rglob(f"{date}_results.json")):
            raise MapflowError(f"results could not be written under {str(self.folder)!r}")

    def report(self) -> int:
        """Sorts the records, writes the summary, prints the table; returns the number of errors."""
        held = claim(self.folder)  # no other process appends while they are sorted
        manifest = read_manifest(self.folder)
        asked = list(manifest["interventions"])
        last = read_asked(self.folder)
        records = [one for one in sort_records(self.folder) if was_asked(one, last)]
        own = _own_scores(records)
        summaries = sorted(
            (
                replace(one, scores={**one.scores, **_of(one, own.get(one.intervention, {}))})
                for one in summarize(records, benchmark_sizes())
            ),
            key=lambda one: asked.index(one.intervention),
        )
        print(f"\n{summary_blocks(summaries, benchmark_titles())}")
        if said := uncut_note(manifest):
            print(said)
        if self._kept:
            write_json(self.folder / SUMMARY, summaries_json(summaries))
            print(f"\nrecords, manifest and summary: {self.folder}")
        del held
        return sum(s.errors for s in summaries)


def report_unseen() -> int:
    """Warns of questions of mapflow's tasks that another model could not be shown; their number.

    The first process tells of all; another one's exit code would end it before it has written.
    """
    from mapflow.tasks.lmms_functions import failed_questions

    failed = failed_questions() if processes().rank == 0 else {}
    if failed:
        LOG.warning(
            "%s of mapflow's tasks without a video to show, not scored; the first %s: %s",
            counted(len(failed), "question"),
            *next(iter(failed.items())),
        )
    return len(failed)


def _of(summary: Summary, scores: Mapping[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """The scores of the summary's own tasks."""
    return {task: values for task, values in scores.items() if task in summary.tasks}


def _own_scores(records: Sequence[Record]) -> Mapping[str, Mapping[str, dict[str, float]]]:
    """What the other tasks of lmms-eval make of all their records; see `own_scores`."""
    if all(record.scores is None for record in records):
        return {}
    from mapflow.model_adapters.lmms.foreign_tasks import own_scores

    return own_scores(records)


def _temporary_folder() -> tuple[Path, Claim]:
    """A folder that all ranks of a run share, and its claim; rank 0 removes it at exit."""
    here = processes()
    if here.several_machines:
        raise MapflowError(
            "processes on several machines need --output_path: a folder that all of them see"
        )
    job = sha256(here.job.encode()).hexdigest()[:16] if here.job else None
    folder, held = shared_temporary(job)
    if here.rank == 0:
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder, held

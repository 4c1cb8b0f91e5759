"""Which questions the last command asked, of how many: `asked.json` in a run folder.

A folder keeps the answers of earlier commands, so a run can be continued. Tables report what was
asked for last: after `--limit 3` and then `--limit 1`, one question. The file has one entry per
task; a task that a command leaves out keeps its entry.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, TypedDict

from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.files import is_there, read_checked
from mapflow.results.records.base import JsonlRecord

ASKED = "asked.json"


class Entry(TypedDict):
    """One task in the file. `job` is the command that asked, which may be several processes."""

    job: str
    of: int
    questions: list[str]


class Asked(NamedTuple):
    """One task: the ids of the questions asked, and the number of questions that the task has."""

    questions: frozenset[str]
    of: int


def read_asked(folder: Path) -> dict[str, Asked]:
    """Task → questions asked; empty for a folder of an earlier version, which reports everything.

    Raises MapflowError for a file of another form.
    """
    entries = _entries(folder).items()
    return {task: Asked(frozenset(entry["questions"]), entry["of"]) for task, entry in entries}


def _entries(folder: Path) -> dict[str, Entry]:
    path = folder / ASKED
    entries: dict[str, Entry] = read_checked(path, dict[str, Entry]) if is_there(path) else {}
    for task, entry in entries.items():
        if entry["of"] < len(set(entry["questions"])):
            raise MapflowError(
                f"{path}: more questions of {task!r} were asked than its {entry['of']}; remove the"
                " file to report all answers"
            )
    return entries


def joined(
    folder: Path, job: str, questions: Iterable[tuple[str, str]], sizes: Mapping[str, int]
) -> dict[str, Entry]:
    """The content of `asked.json` with these (task, question id) pairs.

    Entries of the same job, which may run in several processes, grow; others are replaced.
    """
    content = _entries(folder)
    new: dict[str, set[str]] = {}
    for task, question in questions:
        new.setdefault(task, set()).add(question)
    for task, ids in new.items():
        earlier = content.get(task)
        if earlier and earlier["job"] == job:
            ids.update(earlier["questions"])
        content[task] = {"job": job, "of": sizes[task], "questions": sorted(ids)}
    return content


def was_asked(record: JsonlRecord, asked: Mapping[str, Asked]) -> bool:
    """Whether the last command asked the record's question."""
    task = asked.get(record.task)
    return task is None or record.question_id in task.questions

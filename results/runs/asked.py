"""Which questions the last command asked, of how many: `asked.json` in a run folder.

A folder keeps the answers of earlier commands, so a run can be continued. Tables report what was
asked for last: after `--limit 3` and then `--limit 1`, one question. The file has one entry per
task; a task that a command leaves out keeps its entry.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.files import read_json
from mapflow.results.records.base import JsonlRecord

ASKED = "asked.json"


class Asked(NamedTuple):
    """One task: the ids of the questions asked, and the number of questions that the task has."""

    questions: frozenset[str]
    of: int


def read_asked(folder: Path) -> dict[str, Asked]:
    """Task → questions asked; empty for a folder of an earlier version, which reports everything.

    Raises MapflowError for a file of another form.
    """
    path = folder / ASKED
    if not path.is_file():
        return {}
    try:
        return {
            task: Asked(frozenset(map(str, entry["questions"])), int(entry["of"]))
            for task, entry in read_json(path).items()
        }
    except (AttributeError, KeyError, TypeError, ValueError):
        raise MapflowError(
            f"{path}: not a list of the questions asked; remove the file to report all answers"
        ) from None


def joined(
    folder: Path, job: str, questions: Iterable[tuple[str, str]], sizes: Mapping[str, int]
) -> dict[str, dict[str, object]]:
    """The content of `asked.json` with these (task, question id) pairs.

    Entries of the same job, which may run in several processes, grow; others are replaced.
    """
    path = folder / ASKED
    content: dict[str, dict[str, object]] = read_json(path) if path.is_file() else {}
    new: dict[str, list[str]] = {}
    for task, question in questions:
        new.setdefault(task, []).append(question)
    for task, ids in new.items():
        earlier = content.get(task, {})
        kept = earlier.get("questions") if earlier.get("job") == job else []
        together = sorted({*(kept if isinstance(kept, list) else []), *ids})
        content[task] = {"job": job, "of": sizes[task], "questions": together}
    return content


def was_asked(record: JsonlRecord, asked: Mapping[str, Asked]) -> bool:
    """Whether the last command asked the record's question."""
    task = asked.get(record.task)
    return task is None or record.question_id in task.questions

"""Runs an analysis: questions to records in a folder, by any number of processes.

Questions are dealt out by their ids and processes do not synchronise. A run that is started again
computes only what the folder lacks; the last process to finish collects all records.
"""

from __future__ import annotations

import logging
import sys
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from mapflow.model_adapters.inference.run_loop import OneByOne, run_questions
from mapflow.model_adapters.inference.subject import Subject
from mapflow.model_adapters.video_llm import Prepared, VideoLLM
from mapflow.results.contract.question import Question
from mapflow.results.records.base import JsonlRecord
from mapflow.results.runs.claim import in_turn
from mapflow.results.runs.folder import RunFolder, read_records, sort_records
from mapflow.results.runs.processes import processes
from mapflow.tasks.registry import task_sizes

LOG = logging.getLogger(__name__)
R = TypeVar("R", bound=JsonlRecord)


class Measurement(Protocol[R]):
    """The part of a `QuestionAnalysis` that a run needs; see there."""

    RECORD: ClassVar[type[JsonlRecord]]

    @property
    def samples(self) -> str: ...
    @property
    def names(self) -> Sequence[str]: ...
    @property
    def settings(self) -> Mapping[str, Any]: ...
    def about(self, model: VideoLLM) -> Mapping[str, Any]: ...
    def left_out(self, model: VideoLLM, prepared: Prepared) -> list[R]: ...
    def plan(self, model: VideoLLM, prepared: Prepared) -> list[str]: ...
    def measure(self, model: VideoLLM, prepared: Prepared) -> list[R]: ...
    def failed(self, question: Question, reason: str) -> list[R]: ...


@dataclass(frozen=True)
class Shard:
    """This process's share of a run: process `rank` (0-based) of `world`.

    Records do not depend on the number of processes, so another number may continue a run: what is
    random depends on the question's id, and questions are dealt out before the answered ones are
    left out.
    """

    rank: int
    world: int

    @classmethod
    def from_environment(cls) -> Shard:
        """What torchrun, accelerate or srun tell, on one machine or many (`processes.py`)."""
        here = processes()
        return cls(here.rank, here.world)

    def share(self, questions: Sequence[Question]) -> list[Question]:
        """This process's questions, sorted by id.

        Shares differ in size by at most one and do not depend on the order of `questions`.
        """
        return sorted(questions, key=lambda one: one.question_id)[self.rank :: self.world]


def run_analysis(
    analysis: Measurement[R], subject: Subject, folder: Path, shard: Shard | None = None
) -> list[R] | None:
    """The records of the questions asked, sorted; None while other processes have some to answer.

    `analysis` is fitted to the subject's model, `shard` by default this process's. Raises
    MapflowError if the folder holds another run or cannot be written.
    """
    model, shard = subject.model, shard or Shard.from_environment()
    identity = {**subject.identity, **analysis.settings, "samples": analysis.samples}
    about = {
        **analysis.about(model),
        "device": str(model.decoder.device),
        "command": sys.orig_argv,
    }
    kind: type[R] = analysis.RECORD  # pyright: ignore[reportAssignmentType]
    run = RunFolder(folder, identity, about, kind)
    is_first = shard.rank == 0

    def measure(prepared: Prepared) -> list[R]:
        nonlocal is_first
        if is_first:
            is_first = False
            for line in analysis.plan(model, prepared):
                LOG.info(line)
        return analysis.left_out(model, prepared) or analysis.measure(model, prepared)

    run.note_asked([(one.task, one.question_id) for one in subject.questions], _sizes(subject))
    work = OneByOne(model, analysis.names, measure, analysis.failed)
    mine = shard.share(subject.questions)
    deque(run_questions(work, mine, run, show=shard.rank == 0), maxlen=0)
    expected = {(one.question_id, name) for one in subject.questions for name in analysis.names}
    return _all_records(folder, kind, expected)


def _sizes(subject: Subject) -> dict[str, int]:
    """Task → its number of questions as published, or else as asked."""
    asked = Counter(one.task for one in subject.questions)
    return asked | {task: n for task, n in task_sizes().items() if task in asked}


def _all_records(folder: Path, kind: type[R], expected: set[tuple[str, str]]) -> list[R] | None:
    with in_turn(folder):
        records = read_records(folder, kind)
        if not expected <= {record.key for record in records}:
            return None
        sort_records(folder, kind)
    asked = {question for question, _ in expected}
    return [record for record in records if record.question_id in asked]

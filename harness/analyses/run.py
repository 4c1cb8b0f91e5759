"""An analysis's run: questions to records in a folder, over any number of processes, taken up again where it stopped.

A record a question × intervention or route. Questions are dealt out by their ids (`shard.py`); nobody waits for anybody. Who finds the folder complete gets all records, sorted, and writes the summary.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from tqdm import tqdm

from mapflow.harness.analyses.shard import Shard
from mapflow.model_adapters.inference.memory_limit import unless_too_large
from mapflow.model_adapters.inference.question_loading import load_ahead
from mapflow.model_adapters.inference.run_identity import run_identity
from mapflow.model_adapters.interventions import Intervention
from mapflow.model_adapters.video_llm import Prepared, VideoLLM
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import Question
from mapflow.results.records.base import Line
from mapflow.results.runs.claim import in_turn
from mapflow.results.runs.folder import RunFolder, read_records, sort_records
from mapflow.tasks.documents import Document, to_question
from mapflow.tasks.lmms_functions import question_of

R = TypeVar("R", bound=Line)


@dataclass(frozen=True)
class Analysis(Generic[R]):
    """`ask` and `failed` give a question's records, one for each of `names` (interventions, routes); `settings` must agree when a
    run is taken up; `about` is noted in its manifest."""

    kind: type[R]
    names: Sequence[str]
    settings: Mapping[str, Any]
    ask: Callable[[Prepared], list[R]]
    failed: Callable[[Question, str], list[R]]
    about: Mapping[str, Any] = field(default_factory=dict)


def run_analysis(
    analysis: Analysis[R],
    model_name: str,
    model: VideoLLM,
    documents: Sequence[Document],
    protocol: str,
    folder: Path,
    shard: Shard,
) -> list[R] | None:
    """All records of these questions and interventions; None where other processes still have questions to answer.

    Raises MapflowError where the folder holds another run or cannot be written.
    """
    identity = {**run_identity(model_name, model, protocol), **analysis.settings}
    about = {**analysis.about, "device": str(model.decoder.device), "command": sys.orig_argv}
    run = RunFolder(folder, identity, about, analysis.kind)
    waiting = [
        doc
        for doc in shard.share(documents)
        if any((doc["question_id"], name) not in run.answered for name in analysis.names)
    ]
    with tqdm(total=len(waiting), desc="questions", unit="q", disable=shard.rank != 0) as bar:
        for doc, prepared in load_ahead(model, waiting, question_of):
            fail = partial(analysis.failed, to_question(doc, protocol))
            if isinstance(prepared, MapflowError):
                records = fail(str(prepared))
            else:
                records = unless_too_large(model, partial(_ask, analysis, prepared), fail)
            run.append(record for record in records if record.key not in run.answered)
            bar.update()
    return _all_records(
        folder,
        analysis.kind,
        {(doc["question_id"], name) for doc in documents for name in analysis.names},
    )


def described(interventions: Sequence[Intervention], model: VideoLLM) -> dict[str, dict[str, str]]:
    """For a manifest: each intervention's name and what it means on this model."""
    return {"interventions": {str(one): one.describe(model.pathways) for one in interventions}}


def _ask(analysis: Analysis[R], prepared: Prepared | Exception) -> list[R]:
    if isinstance(prepared, Exception):
        raise prepared
    return analysis.ask(prepared)


def _all_records(folder: Path, kind: type[R], expected: set[tuple[str, str]]) -> list[R] | None:
    with in_turn(folder):
        records = read_records(folder, kind)
        if not expected <= {record.key for record in records}:
            return None
        sort_records(folder, kind)
    return records

"""The functions that task YAML files name: between lmms-eval's documents and our questions.

A task hands our model adapters the structured `Question` in place of a bare video path; other models get the
readable prompt from `doc_to_text`. The protocol is `MAPFLOW_PROTOCOL` (default: paper), read when a question is built;
the data folder is `MAPFLOW_DATA` (default: the Hub), read when a task's documents are loaded.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from mapflow.results.contract.answers import NOT_ASKED
from mapflow.results.contract.archives import Archive
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.grading import grade
from mapflow.results.contract.question import Question
from mapflow.tasks.data_folder import DataFolder, Layout, VideoFile, data_folder
from mapflow.tasks.documents import Document, candidates_to_document, to_question
from mapflow.tasks.hub import fetch
from mapflow.tasks.tomato import questions as tomato
from mapflow.tasks.tvbench import questions as tvbench
from mapflow.tasks.tvbench_open import questions as tvbench_open

MOTION = Path(__file__).parent / "motion" / "data"


def question_of(doc: Mapping[str, Any]) -> Question:
    """The document's question in the chosen protocol; its video is unpacked where it still lies in a zip file.

    A damaged zip entry leaves the video missing, which the run then records as that question's error.
    """
    if doc["archive"] and not Path(doc["video"]).is_file():
        try:
            Archive.open(Path(doc["archive"])).extract(doc["archive_entry"], Path(doc["video"]))
        except MapflowError as error:
            print(f"{doc['question_id']}: {error}", file=sys.stderr)
    return to_question(doc, os.environ.get("MAPFLOW_PROTOCOL", "paper"))


def doc_to_visual(doc: Mapping[str, Any]) -> list[Question]:
    """One structured question: it names clip, stem and options, so that layouts never search strings."""
    return [question_of(doc)]


def doc_to_text(
    doc: Mapping[str, Any], lmms_eval_specific_kwargs: Mapping[str, Any] | None = None
) -> str:
    """The user's turn as text, for logs and for models that read text."""
    question = to_question(doc, os.environ.get("MAPFLOW_PROTOCOL", "paper"))
    return "".join(part.text for part in question.user_turn("completion"))


def doc_to_target(doc: Mapping[str, Any]) -> str:
    """The right letter, or the open answer."""
    return to_question(doc, os.environ.get("MAPFLOW_PROTOCOL", "paper")).target_text


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """Accuracy, with what is needed to pair questions of several runs beside it.

    A question that could not be asked gets no accuracy at all. An answer is right by its option's *text*; one that
    names no option, or several, is wrong and invalid.
    """
    question = to_question(doc, os.environ.get("MAPFLOW_PROTOCOL", "paper"))
    text = results[0]
    identity = {
        "question_id": question.question_id,
        "video_id": question.video_id,
        "prediction": text,
    }
    if text == NOT_ASKED:
        return {"answer": {**identity, "valid": None}}
    correct, valid = grade(question, text)
    scores = {"accuracy": float(correct), "micro": float(correct)}
    if doc["category"]:
        scores[doc["category"]] = float(correct)
    return {**scores, "answer": {**identity, "valid": valid}}


class Share(float):
    """A mean that remembers of how many, so that means of subtasks pool exactly."""

    n: int

    def __new__(cls, values: Sequence[float]) -> Share:
        share = super().__new__(cls, sum(values) / len(values) if values else float("nan"))
        share.n = len(values)
        return share


def share(values: Sequence[float]) -> Share:
    """The mean over a subtask's questions."""
    return Share(values)


def pooled(shares: Sequence[Share], sizes: Sequence[int], weight_by_size: bool) -> float:
    """The mean over all subtasks' questions together; only those that were asked, and that the metric is about."""
    total = sum(one.n for one in shares)
    return sum(one * one.n for one in shares if one.n) / total if total else float("nan")


def valid_answer_rate(answers: Sequence[Mapping[str, Any]]) -> float:
    """Share of answers that name an option, of the questions that were asked."""
    valid = [answer["valid"] for answer in answers if answer["valid"] is not None]
    return sum(valid) / len(valid) if valid else float("nan")


def motion_docs(rows: Dataset) -> Dataset:
    """The bundled benchmark's rows as documents. Its splits are its subtasks."""
    subtask = str(rows.split)
    return _dataset(
        candidates_to_document(
            dict(row),
            benchmark="motion",
            subtask=subtask,
            number=number,
            video=lambda name: VideoFile(MOTION / "video" / subtask / name),
        )
        for number, row in enumerate(rows)
    )


def tvbench_docs(rows: Dataset) -> Dataset:
    """TVBench's documents of the subtask that the split is named after; `rows` lists the subtasks."""
    return _read(rows, tvbench.LAYOUT, tvbench.read_documents)


def tvbench_open_docs(rows: Dataset) -> Dataset:
    """TVBench's open-ended documents, as above."""
    return _read(rows, tvbench.LAYOUT, tvbench_open.read_documents)


def tomato_docs(rows: Dataset) -> Dataset:
    """TOMATO's documents, as above."""
    return _read(rows, tomato.LAYOUT, tomato.read_documents)


def _read(
    rows: Dataset, layout: Layout, read: Callable[[DataFolder, str], list[Document]]
) -> Dataset:
    subtask = str(rows.split)
    return _dataset(read(data_folder(layout) or fetch(layout, subtask), subtask))


def _dataset(documents: Iterable[Document]) -> Dataset:
    return Dataset.from_list([dict(document) for document in documents])

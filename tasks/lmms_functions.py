"""The functions that task YAML files name: between lmms-eval's documents and our questions.

A task hands our model adapters the structured `Question` in place of a bare video path; other models get the
readable prompt from `doc_to_text`. The protocol is `MAPFLOW_PROTOCOL` (default: paper), read when a question is built.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from mapflow.results.question import Question
from mapflow.results.answers import parse_answer
from mapflow.tasks.documents import candidates_to_document, to_question

MOTION = Path(__file__).parent / "motion" / "data"


def question_of(doc: Mapping[str, Any]) -> Question:
    """The document's question in the chosen protocol."""
    return to_question(doc, os.environ.get("MAPFLOW_PROTOCOL", "paper"))


def doc_to_visual(doc: Mapping[str, Any]) -> list[Question]:
    """One structured question: it names clip, stem and options, so that layouts never search strings."""
    return [question_of(doc)]


def doc_to_text(doc: Mapping[str, Any], lmms_eval_specific_kwargs: Mapping[str, Any] | None = None) -> str:
    """The user's turn as text, for logs and for models that read text."""
    return "".join(part.text for part in question_of(doc).user_turn("completion"))


def doc_to_target(doc: Mapping[str, Any]) -> str:
    """The right letter, or the open answer."""
    return question_of(doc).target_text


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """Accuracy, with what is needed to pair questions of several runs beside it."""
    question = question_of(doc)
    answer = parse_answer(results[0], question.options)
    correct = answer is not None and question.options[answer] == doc["target_text"]
    return {
        "accuracy": float(correct),
        "answer": {
            "question_id": question.question_id,
            "video_id": question.video_id,
            "prediction": results[0],
            "valid": answer is not None,
        },
    }


def valid_answer_rate(answers: Sequence[Mapping[str, Any]]) -> float:
    """Share of answers that name an option."""
    return sum(answer["valid"] for answer in answers) / len(answers)


def motion_docs(rows: Dataset) -> Dataset:
    """The bundled benchmark's rows as documents. Its splits are its subtasks."""
    subtask = str(rows.split)
    videos = MOTION / "video"
    documents = [
        candidates_to_document(row, benchmark="motion", subtask=subtask, number=number, videos=videos)
        for number, row in enumerate(rows)
    ]
    return Dataset.from_list([dict(document) for document in documents])

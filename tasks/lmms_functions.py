"""The functions of our tasks that lmms-eval calls.

lmms-eval keeps questions as rows of a `datasets` table. Our rows name a task and a question id; the
question itself is looked up. Our models get the structured `Question` in place of a video path;
other models get the readable prompt of `doc_to_text`.

Two environment variables are read when a question is looked up, by no other module of `tasks`:
MAPFLOW_PROTOCOL (default: paper) and MAPFLOW_DATA (default: the copy in the cache, fetched from the
Hub).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from datasets import Dataset

from mapflow.results.contract.answers import NOT_ASKED, grade
from mapflow.results.contract.question import Question
from mapflow.tasks.registry import load_questions


class Document(TypedDict):
    """One row of the table that lmms-eval holds."""

    task: str
    question_id: str


def documents(placeholder: Dataset) -> Dataset:
    """The rows of one task. `placeholder` names the benchmark; its split is the subtask."""
    task = f"mapflow_{placeholder[0]['benchmark']}_{placeholder.split}"
    _loaded.pop(_key(task), None)  # its files may have changed since a table was made of them
    rows = [Document(task=task, question_id=question_id) for question_id in _questions(task)]
    return Dataset.from_list([dict(row) for row in rows])


def question_of(doc: Mapping[str, Any]) -> Question:
    """The row's question. Raises MapflowError for an unknown protocol."""
    return _questions(doc["task"])[doc["question_id"]]


def doc_to_visual(doc: Mapping[str, Any]) -> list[Question]:
    """The structured question, for our models."""
    return [question_of(doc)]


def doc_to_text(
    doc: Mapping[str, Any], lmms_eval_specific_kwargs: Mapping[str, Any] | None = None
) -> str:
    """The user's turn as text, for logs and for models that read text."""
    return "".join(part.text for part in question_of(doc).user_turn("completion"))


def doc_to_target(doc: Mapping[str, Any]) -> str:
    """The right letter, or the open answer."""
    return question_of(doc).target_text


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """Metrics of one answer, with the ids that pair questions of several runs.

    A question that could not be asked gets no accuracy. An answer is right if the *text* of its
    option is; an answer that names no option, or several, is wrong and invalid.
    """
    question = question_of(doc)
    text = results[0]
    identity = {
        "question_id": question.question_id,
        "video_id": question.video_id,
        "prediction": text,
    }
    if text == NOT_ASKED:
        return {"answer": {**identity, "valid": None}}
    if question.target == "":  # such as VCGBench's, which only a judge can score
        return {"answer": {**identity, "valid": bool(text)}}
    correct, valid = grade(question, text)
    scores = {"accuracy": float(correct), "micro": float(correct)}
    if question.category:
        scores[question.category] = float(correct)
    return {**scores, "answer": {**identity, "valid": valid}}


class Share(float):
    """A mean with the number of its values, so that means of subtasks pool exactly."""

    n: int

    def __new__(cls, values: Sequence[float]) -> Share:
        share = super().__new__(cls, sum(values) / len(values) if values else float("nan"))
        share.n = len(values)
        return share


def share(values: Sequence[float]) -> Share:
    """The mean over a subtask's questions."""
    return Share(values)


def pooled(shares: Sequence[Share], sizes: Sequence[int], weight_by_size: bool) -> float:
    """The mean over the answered questions of all subtasks that the metric applies to."""
    total = sum(one.n for one in shares)
    return sum(one * one.n for one in shares if one.n) / total if total else float("nan")


def valid_answer_rate(answers: Sequence[Mapping[str, Any]]) -> float:
    """Share of answers that name an option, of the questions that were asked."""
    valid = [answer["valid"] for answer in answers if answer["valid"] is not None]
    return sum(valid) / len(valid) if valid else float("nan")


_Key = tuple[str, str, str | None]
_loaded: dict[_Key, dict[str, Question]] = {}


def _key(task: str) -> _Key:
    protocol = os.environ.get("MAPFLOW_PROTOCOL", "paper")
    return task, protocol, os.environ.get("MAPFLOW_DATA") or None


def _questions(task: str) -> dict[str, Question]:
    """A task's questions by id, in the chosen protocol; read once."""
    key = _key(task)
    if key not in _loaded:
        _, protocol, data_dir = key
        found = load_questions(task, protocol, Path(data_dir) if data_dir else None)
        _loaded[key] = {question.question_id: question for question in found}
    return _loaded[key]

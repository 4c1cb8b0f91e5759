"""The functions of our tasks that lmms-eval calls.

lmms-eval keeps questions as rows of a `datasets` table. Our rows name a task and a question id; the
question itself is looked up. Our models get a path that carries the structured `Question`, and read
the clip's bounds themselves. Other models get the clip as a file of its own and the text of the
question, and answers that they write are parsed.

Two environment variables are read when a question is looked up, by no other module of `tasks`:
MAPFLOW_PROTOCOL (default: paper) and MAPFLOW_DATA (default: the copy in the cache, fetched from the
Hub).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, TypedDict

from datasets import Dataset
from loguru import logger as eval_logger

from mapflow.model_adapters.video.cutting import blank_file, clip_file
from mapflow.results.contract.answers import NOT_ASKED, grade_written
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import Question, QuestionVideo
from mapflow.tasks.registry import benchmark_of, load_questions, task_names


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


def whole_video(doc: Mapping[str, Any]) -> list[QuestionVideo]:
    """The path of the video as it is, for models that take the question which it carries."""
    question = question_of(doc)
    return [QuestionVideo(question.clip.path, question)]


class DocToVisual:
    """`doc_to_visual` of our tasks, for models that know nothing of clips.

    Models that take the question itself ask `whole` instead, which writes no file.
    """

    whole = staticmethod(whole_video)

    def __call__(self, doc: Mapping[str, Any]) -> list[str]:
        """The path of a file that shows the question's clip, and nothing else of its video.

        Where the clip cannot be cut, the question has failed: a line says why, a grey clip takes
        its place, and `process_results` gives no score. The path is a plain `str`: some models take
        a subclass for a list of paths (`type(path) is str`).
        """
        question = question_of(doc)
        try:
            file = clip_file(question.clip)
        except MapflowError as error:
            if question.question_id not in _failed:
                eval_logger.error(f"{question.question_id} is not scored: {error}")
            _failed[question.question_id] = str(error)
            _keep_out_of_cache()
            file = blank_file()
        return [str(file)]


doc_to_visual = DocToVisual()


def failed_questions() -> Mapping[str, str]:
    """Question id → reason, of the questions whose clip could not be shown: by this process, or,
    in the first process once scores are aggregated, by any.
    """
    return _failed


def doc_to_text(
    doc: Mapping[str, Any], lmms_eval_specific_kwargs: Mapping[str, Any] | None = None
) -> str:
    """What models of lmms-eval are asked: the protocol's wording for chat models, as one text.

    The system text comes first, because many models have a system text of their own. A protocol
    that begins the answer's sentence asks to complete it.
    """
    question = question_of(doc)
    style = "chat" if "chat" in question.prompts else "completion"
    prompt = question.prompt(style)
    system = f"{prompt.system.rstrip()}\n" if prompt.system.strip() else ""
    turn = "".join(part.text for part in question.user_turn(style)).rstrip()
    begun = "" if question.options else prompt.answer_prefix.strip()
    task = f"\nComplete this sentence and write nothing else: {begun} …" if begun else ""
    return f"{system}{turn}{task}"


def doc_to_messages(
    doc: Mapping[str, Any], lmms_eval_specific_kwargs: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """The conversation for lmms-eval's chat models: one user turn, the clip before the text."""
    videos = [{"type": "video", "url": video} for video in doc_to_visual(doc)]
    text = {"type": "text", "text": doc_to_text(doc, lmms_eval_specific_kwargs)}
    return [{"role": "user", "content": [*videos, text]}]


def doc_to_target(doc: Mapping[str, Any]) -> str:
    """The right letter, or the open answer."""
    return question_of(doc).target_text


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """Metrics of one answer, with the ids that pair questions of several runs.

    A question that could not be asked gets no accuracy. An answer is right if the *text* of its
    option is; an answer that names no option, or several, is wrong and invalid. Answers of our
    models are counted as their records say instead (`model_adapters/lmms/models.py`).
    """
    question = question_of(doc)
    text = NOT_ASKED if question.question_id in _failed else results[0]
    identity = {
        "question_id": question.question_id,
        "video_id": question.video_id,
        "prediction": text,
    }
    if text == NOT_ASKED:
        why = _failed.get(question.question_id)
        return {"answer": {**identity, "valid": None, **({"error": why} if why else {})}}
    if question.target == "":  # such as VCGBench's, which only a judge can score
        return {"answer": {**identity, "valid": bool(text)}}
    correct, valid = grade_written(question, text)
    # lmms-eval writes an empty list for a metric that the task's file does not name
    pooled = benchmark_of(question.task).pooled_metrics
    named = ("accuracy", *(one for one in pooled if one in ("micro", question.category)))
    scores = dict.fromkeys(named, float(correct))
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
    """Share of answers that name an option, of the questions that were asked.

    The first process gets the answers of all: it learns which questions failed elsewhere.
    """
    _failed.update({one["question_id"]: one["error"] for one in answers if one.get("error")})
    valid = [answer["valid"] for answer in answers if answer["valid"] is not None]
    return sum(valid) / len(valid) if valid else float("nan")


def _keep_out_of_cache() -> None:
    """From now on, lmms-eval's cache of answers (`--use_cache`) takes none to a grey clip.

    Another run would score it, since it asks only for videos whose answers are not cached. The
    cache writes a log, which it reads again after a crash, and a table; checked with 0.7.3.
    """
    from lmms_eval.caching.response_cache import ResponseCache

    for name, first in (("_log_to_audit", 1), ("_store", 2)):
        original = getattr(ResponseCache, name)
        if not hasattr(original, "__wrapped__"):
            setattr(ResponseCache, name, _unless_failed(original, first))


def _unless_failed(write: Callable[..., None], first: int) -> Callable[..., None]:
    """first: position of the task's name among the arguments; the row's number comes after it."""

    @wraps(write)
    def guarded(cache: Any, *args: Any, **kwargs: Any) -> None:
        task, row = args[first : first + 2]
        own = [*_questions(task)] if task in task_names() else []
        if not (own and own[int(row)] in _failed):
            write(cache, *args, **kwargs)

    return guarded


_failed: dict[str, str] = {}
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

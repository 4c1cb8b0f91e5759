"""A document: one question as lmms-eval carries it, a flat row of a `datasets` table; and back to a `Question`.

Every benchmark of ours turns its publisher's files into these rows, so that one set of functions serves all tasks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, TypedDict

import yaml

from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import Clip, Prompt, PromptStyle, Question
from mapflow.tasks.data_folder import VideoFile
from mapflow.tasks.rows import Row, answer_text_of, bounds_of, file_name_of, options_of, text_of


class Document(TypedDict):
    """`target` is the right option's index, or -1 for an open-ended question, whose answer begins with `target_text`.

    `video` is an absolute path, where `archive_entry` of the zip file `archive` is unpacked to if these are named;
    `start` and `end` are seconds or None; `answer_begin` is what an open-ended question's answer is begun with;
    `category` groups questions for reporting besides the subtask (TOMATO's demonstration type). Texts may be empty.
    """

    question_id: str
    video_id: str
    benchmark: str
    task: str
    video: str
    archive: str
    archive_entry: str
    start: float | None
    end: float | None
    stem: str
    options: list[str]
    target: int
    target_text: str
    answer_begin: str
    category: str


class Protocol(TypedDict):
    """How a benchmark words its questions for each style of model, how many frames it shows (None: the model's own
    number) and how many tokens it lets the model write (1: the first token is the answer). `{begin}` in an answer
    prefix stands for the document's `answer_begin`."""

    n_frames: int | None
    max_new_tokens: int
    prompts: dict[PromptStyle, Prompt]


@cache
def read_protocols(benchmark: str) -> Mapping[str, Protocol]:
    """The benchmark's `prompts.yaml`: protocol → wording. Raises MapflowError where the benchmark has none."""
    path = Path(__file__).parent / benchmark / "prompts.yaml"
    if not path.is_file():
        raise MapflowError(f"benchmark {benchmark!r} has no prompts.yaml")
    entries: dict[str, dict[str, Any]] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {
        name: Protocol(
            n_frames=entry.get("n_frames"),
            max_new_tokens=entry.get("max_new_tokens", 1),
            prompts={style: Prompt(**wording) for style, wording in entry["prompts"].items()},
        )
        for name, entry in entries.items()
    }


def to_question(doc: Mapping[str, Any], protocol: str) -> Question:
    """The question that a document holds, in the wording of `protocol`. Raises MapflowError for an unknown protocol."""
    if "stem" not in doc:
        from mapflow.tasks.registry import load_questions

        data_dir = os.environ.get("MAPFLOW_DATA")
        found = load_questions(doc["task"], protocol, Path(data_dir) if data_dir else None)
        return next(one for one in found if one.question_id == doc["question_id"])
    protocols = read_protocols(doc["benchmark"])
    if protocol not in protocols:
        raise MapflowError(
            f"benchmark {doc['benchmark']!r} has no protocol {protocol!r}; it has {', '.join(protocols)}"
        )
    chosen = protocols[protocol]
    return Question(
        question_id=doc["question_id"],
        video_id=doc["video_id"],
        task=doc["task"],
        clip=Clip(doc["video"], doc["start"], doc["end"]),
        stem=doc["stem"],
        options=tuple(doc["options"]),
        target=doc["target"] if doc["target"] >= 0 else doc["target_text"],
        protocol=protocol,
        prompts={
            style: _begun(prompt, doc["answer_begin"])
            for style, prompt in chosen["prompts"].items()
        },
        n_frames=chosen["n_frames"],
        max_new_tokens=chosen["max_new_tokens"],
    )


def _begun(prompt: Prompt, begin: str) -> Prompt:
    return replace(prompt, answer_prefix=prompt.answer_prefix.replace("{begin}", begin))


def candidates_to_document(
    row: Row,
    *,
    benchmark: str,
    subtask: str,
    number: int | str,
    video: Callable[[str], VideoFile],
    bounds_required: bool = False,
) -> Document:
    """A row of TVBench's layout ({video, question, candidates, answer[, start, end]}), whose answer is a candidate's
    *text*: "4" is text, not an index. `video` finds a file by its name. Raises MapflowError naming question and field."""
    where = numbered(benchmark, subtask, number)
    options = options_of(row, "candidates", where)
    answer = answer_text_of(row, "answer", options, where)
    start, end = bounds_of(row, where, required=bounds_required)
    name = file_name_of(row, "video", where)
    return Document(
        question_id=where,
        video_id=f"{subtask}/{name}",
        benchmark=benchmark,
        task=f"mapflow_{benchmark}_{subtask}",
        **located(video, name, where, "video"),
        start=start,
        end=end,
        stem=text_of(row, "question", where),
        options=options,
        target=options.index(answer),
        target_text=answer,
        answer_begin="",
        category="",
    )


def numbered(benchmark: str, subtask: str, number: int | str) -> str:
    """A question's id: benchmark, subtask and its number in the publisher's file."""
    digits = str(number)
    return f"{benchmark}/{subtask}/{digits.zfill(4) if digits.isdecimal() else digits}"


class Located(TypedDict):
    """The fields of a Document that say where its video is."""

    video: str
    archive: str
    archive_entry: str


def located(video: Callable[[str], VideoFile], name: str, where: str, field: str) -> Located:
    """Raises MapflowError naming question and field where the file must not be read."""
    try:
        file = video(name)
    except MapflowError as error:
        raise MapflowError(f"{where}: field {field!r}: {error}") from None
    return Located(
        video=str(file.path), archive=str(file.archive or ""), archive_entry=file.entry or ""
    )


def chance_level(documents: Iterable[Mapping[str, Any]]) -> float:
    """Expected accuracy of a uniform guess: the mean of 1/options (0 for open-ended questions)."""
    shares = [1 / len(doc["options"]) if doc["options"] else 0.0 for doc in documents]
    return sum(shares) / len(shares) if shares else float("nan")

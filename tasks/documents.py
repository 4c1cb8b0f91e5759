"""A document: one question as lmms-eval carries it, a flat row of a `datasets` table; and back to a `Question`.

Every benchmark of ours turns its publisher's files into these rows, so that one set of functions serves all tasks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypedDict

import yaml

from mapflow.results.errors import MapflowError
from mapflow.results.question import Clip, Prompt, PromptStyle, Question


class Document(TypedDict):
    """`target` is the right option's index, or -1 for an open-ended question, whose answer begins with `target_text`.

    `video` is an absolute path; `start` and `end` are seconds or None; `category` groups questions for reporting
    besides the subtask (TOMATO's demonstration type) and may be empty.
    """

    question_id: str
    video_id: str
    benchmark: str
    task: str
    video: str
    start: float | None
    end: float | None
    stem: str
    options: list[str]
    target: int
    target_text: str
    category: str


class Protocol(TypedDict):
    """How a benchmark words its questions for each style of model, how many frames it shows (None: the model's own
    number) and how many tokens it lets the model write (1: the first token is the answer)."""

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
        prompts=chosen["prompts"],
        n_frames=chosen["n_frames"],
        max_new_tokens=chosen["max_new_tokens"],
    )


def candidates_to_document(
    row: Mapping[str, Any], *, benchmark: str, subtask: str, number: int, videos: Path
) -> Document:
    """A row of TVBench's layout ({video, question, candidates, answer[, start, end]}), whose answer is a candidate's
    *text*: "4" is text, not an index. Raises MapflowError naming question and field."""
    question_id = f"{benchmark}/{subtask}/{number:04d}"
    options, answer = [str(option) for option in row["candidates"]], str(row["answer"])
    if answer not in options:
        raise MapflowError(f"{question_id}: answer {answer!r} is not among the candidates")
    return Document(
        question_id=question_id,
        video_id=f"{subtask}/{row['video']}",
        benchmark=benchmark,
        task=f"mapflow_{benchmark}_{subtask}",
        video=str(videos / subtask / row["video"]),
        start=row.get("start"),
        end=row.get("end"),
        stem=str(row["question"]),
        options=options,
        target=options.index(answer),
        target_text=answer,
        category="",
    )


def chance_level(documents: Iterable[Mapping[str, Any]]) -> float:
    """Expected accuracy of a uniform guess: the mean of 1/options (0 for open-ended questions)."""
    shares = [1 / len(doc["options"]) if doc["options"] else 0.0 for doc in documents]
    return sum(shares) / len(shares) if shares else float("nan")

"""TVBench's questions without their options: the answer's sentence is begun, its next word is the answer.

The sentences are those of the paper's examples (arXiv 2510.13251, Table 2 and appendix B.1):
- Moving Direction: "The gray cube moves to the" → "left", of "Up and to the left."; the vertical half is not asked;
- Object Count: "The number of metal objects is" → "three", of "3";
- Action Antonym: "The action being performed in the video is to" → "wear jacket", of "Wear jacket."; without "to" before a
  candidate in -ing.
Knows no prompt.
"""

from __future__ import annotations

import re

from mapflow.results.contract.errors import MapflowError
from mapflow.tasks.data_folder import DataFolder
from mapflow.tasks.documents import Document
from mapflow.tasks.tvbench.questions import read_documents as read_choices

SUBTASKS = ("action_antonym", "moving_direction", "object_count")
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_MOVING = re.compile(r"Which direction (?:does|do) (the .+?) move\b", re.IGNORECASE)
_SIDE = re.compile(r"\bto the (\w+)", re.IGNORECASE)
_COUNTED = re.compile(
    r"How many (.+?) (?:are|is|enter|exit|leave|collide|move|appear)\b", re.IGNORECASE
)


def read_documents(folder: DataFolder, subtask: str) -> list[Document]:
    """The subtask's questions as open ones. Raises MapflowError naming a question whose sentence cannot be begun."""
    return [_opened(document, subtask) for document in read_choices(folder, subtask)]


def _opened(document: Document, subtask: str) -> Document:
    begin, answer = _begin_and_answer(document, subtask)
    return Document(
        **{
            **document,
            "question_id": document["question_id"].replace("tvbench/", "tvbench_open/", 1),
            "benchmark": "tvbench_open",
            "task": f"mapflow_tvbench_open_{subtask}",
            "options": [],
            "target": -1,
            "target_text": answer,
            "answer_begin": begin,
        }
    )


def _begin_and_answer(document: Document, subtask: str) -> tuple[str, str]:
    stem, answer = document["stem"], document["target_text"].strip().rstrip(".")
    if subtask == "moving_direction":
        moving, side = _MOVING.search(stem), _SIDE.search(answer)
        if moving is None or side is None:
            raise MapflowError(
                f"{document['question_id']}: no open form of {stem!r} with answer {answer!r}"
            )
        return f"{_capital(moving[1])} moves to the", side[1].lower()
    if subtask == "object_count":
        counted = _COUNTED.search(stem)
        number = (
            NUMBERS[int(answer)] if answer.isdecimal() and int(answer) < len(NUMBERS) else answer
        )
        return f"The number of {counted[1]} is" if counted else "The number is", number
    participle = answer.split()[0].endswith("ing")
    return f"The action being performed in the video is{'' if participle else ' to'}", answer[
        :1
    ].lower() + answer[1:]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]

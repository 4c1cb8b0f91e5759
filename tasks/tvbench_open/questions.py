"""TVBench's questions without their options: the answer's sentence is begun, its next word is the answer.

How each subtask's sentence begins, and which word of the right candidate comes next:
- Moving Direction: "The gray cube moves to the" → "left" of "Up and to the left." (the paper's begin; the vertical half
  of the direction is not asked);
- Object Count: "The number of objects is " → the number; the begin ends in a space, so that the number, not the space
  before it, is the first token;
- Action Antonym: "The person is" → "sitting down", or, where the candidate is no -ing form, "The action is" → it.
The paper prints the first alone; the others are ours. Knows no prompt.
"""

from __future__ import annotations

import re

from mapflow.results.errors import MapflowError
from mapflow.tasks.data_folder import DataFolder
from mapflow.tasks.documents import Document
from mapflow.tasks.tvbench.questions import read_documents as read_choices

SUBTASKS = ("action_antonym", "moving_direction", "object_count")
_MOVING = re.compile(r"Which direction (?:does|is|do|are) (the .+?) (?:move|moving)\b", re.IGNORECASE)
_SIDE = re.compile(r"\bto the (\w+)", re.IGNORECASE)


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
            raise MapflowError(f"{document['question_id']}: no open form of {stem!r} with answer {answer!r}")
        return f"{_capital(moving[1])} moves to the", side[1].lower()
    if subtask == "object_count":
        return "The number of objects is ", answer
    answer = answer[:1].lower() + answer[1:]
    return ("The person is" if answer.split()[0].endswith("ing") else "The action is"), answer


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]

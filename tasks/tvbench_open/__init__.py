"""TVBench without options: the answer's sentence is begun, and its next word is the answer.

The sentences follow the paper's examples (arXiv 2510.13251, Table 2 and appendix B.1):
- Moving Direction: "The gray cube moves to the" → "left", of "Up and to the left."; the vertical
  half is not asked;
- Object Count: "The number of metal objects is" → "three", of "3";
- Action Antonym: "The action being performed in the video is to" → "wear jacket", of "Wear
  jacket."; without "to" before a candidate in -ing.
"""

import re
from dataclasses import replace
from pathlib import Path

from mapflow.results.contract.errors import MapflowError
from mapflow.tasks import tvbench
from mapflow.tasks.benchmark import Benchmark
from mapflow.tasks.rows import Entry, Row

SUBTASKS = ("action_antonym", "moving_direction", "object_count")
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_MOVING = re.compile(r"Which direction (?:does|do) (the .+?) move\b", re.IGNORECASE)
_SIDE = re.compile(r"\bto the (\w+)", re.IGNORECASE)
_COUNTED = re.compile(
    r"How many (.+?) (?:are|is|enter|exit|leave|collide|move|appear)\b", re.IGNORECASE
)


def read_row(row: Row, subtask: str, question_id: str) -> Entry:
    """A row of TVBench as an open-ended question.

    Raises MapflowError naming the question whose sentence cannot be begun.
    """
    entry = tvbench.read_row(row, subtask, question_id)
    assert isinstance(entry.target, int)
    answer = entry.options[entry.target].strip().rstrip(".")
    begin, target = _begin_and_answer(entry.stem, answer, subtask, question_id)
    return replace(entry, options=(), target=target, answer_begin=begin)


def _begin_and_answer(stem: str, answer: str, subtask: str, question_id: str) -> tuple[str, str]:
    if subtask == "moving_direction":
        moving, side = _MOVING.search(stem), _SIDE.search(answer)
        if moving is None or side is None:
            raise MapflowError(f"{question_id}: no open form of {stem!r} with answer {answer!r}")
        return f"{_capital(moving[1])} moves to the", side[1].lower()
    if subtask == "object_count":
        counted = _COUNTED.search(stem)
        known = answer.isdecimal() and int(answer) < len(NUMBERS)
        number = NUMBERS[int(answer)] if known else answer
        return f"The number of {counted[1]} is" if counted else "The number is", number
    if not answer:
        raise MapflowError(f"{question_id}: no open form of {stem!r} with answer {answer!r}")
    to = "" if answer.split()[0].endswith("ing") else " to"
    return f"The action being performed in the video is{to}", answer[:1].lower() + answer[1:]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


BENCHMARK = Benchmark(
    name="tvbench_open",
    title="TVBench (open)",
    layout=tvbench.BENCHMARK.layout,
    counts={subtask: tvbench.COUNTS[subtask] for subtask in SUBTASKS},
    chance_micro=None,
    chance_macro=None,
    read_row=read_row,
    folder=Path(__file__).parent,
)

"""TVBench without options: the answer's sentence is begun, and its next token is the answer.

Six subtasks, with the sentences and answers of the authors' code (arXiv 2510.13251, Table 2 and
appendix B.1). Their oddities are kept, since they are what the published numbers were asked:
"is to" also stands before answers in -ing and in the past tense; Object Count always asks for
moving objects; Action Localization says "at the throughout".
"""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mapflow.results.contract.errors import MapflowError
from mapflow.tasks import tvbench
from mapflow.tasks.benchmark import Benchmark
from mapflow.tasks.rows import Entry, Row

REGARDING = ("jacket", "shoe", "bag", "headphone", "hat/cap", "glasses")
PARTS = ("Throughout", "beginning", "middle", "end")
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SCENE_QUESTION = "Where does the scene in the video change from one place to another place?"
_ACTION = re.compile(r"action [^']*'([^']*)'")
_OBJECT = re.compile(
    r"\bthe (?:gray|red|blue|green|brown|cyan|purple|yellow) (?:cube|sphere|cylinder)\b"
)


def _action_antonym(stem: str, gold: str) -> tuple[str, str]:
    answer = gold.lower()
    thing = next((one for one in REGARDING if one in answer), None)
    regarding = f" regarding the {thing}" if thing else ""
    return f"The action being performed in the video{regarding} is to", answer


def _action_sequence(stem: str, gold: str) -> tuple[str, str]:
    return "The action the person is doing first is to", gold.lower()


def _action_localization(stem: str, gold: str) -> tuple[str, str]:
    action, part = _ACTION.search(stem), next((one for one in PARTS if one in gold), None)
    if action is None or part is None:
        raise ValueError
    return f"The action '{action[1]}' occurs at the", part.lower()


def _moving_direction(stem: str, gold: str) -> tuple[str, str]:
    found = _OBJECT.search(stem)
    moving = found[0].capitalize() if found else "The object"
    return f"{moving} moves to the", "right" if "right" in gold else "left"


def _object_count(stem: str, gold: str) -> tuple[str, str]:
    if not gold.isdecimal() or int(gold) >= len(NUMBERS):
        raise ValueError
    return "The number of moving objects is", NUMBERS[int(gold)]


def _scene_transition(stem: str, gold: str) -> tuple[str, str]:
    """ "From" goes with its article. A longer word that begins like the article keeps "from"."""
    answer = gold.lower()
    opening = next((one for one in ("from the", "from a", "from") if answer.startswith(one)), "")
    return "The scene in the video changes from the", answer.removeprefix(f"{opening} ")


FORMS: dict[str, Callable[[str, str], tuple[str, str]]] = {
    "action_antonym": _action_antonym,
    "action_sequence": _action_sequence,
    "action_localization": _action_localization,
    "moving_direction": _moving_direction,
    "object_count": _object_count,
    "scene_transition": _scene_transition,
}
"""Subtask → function from stem and right option to the begun sentence and the expected answer.

Such a function raises ValueError for a question that has no open form.
"""


def read_row(row: Row, subtask: str, question_id: str) -> Entry:
    """A row of TVBench as an open-ended question.

    Raises MapflowError naming the question whose sentence cannot be begun.
    """
    entry = tvbench.read_row(row, subtask, question_id)
    assert isinstance(entry.target, int)
    gold = entry.options[entry.target]
    try:
        begin, target = FORMS[subtask](entry.stem, gold)
        if not any(character.isalnum() for character in target):
            raise ValueError
    except ValueError:
        raise MapflowError(
            f"{question_id}: no open form of {entry.stem!r} with answer {gold!r}"
        ) from None
    stem = SCENE_QUESTION if subtask == "scene_transition" else entry.stem
    return replace(entry, stem=stem, options=(), target=target, answer_begin=begin)


BENCHMARK = Benchmark(
    name="tvbench_open",
    title="TVBench (open)",
    layout=tvbench.BENCHMARK.layout,
    counts={subtask: tvbench.COUNTS[subtask] for subtask in FORMS},
    chance_micro=None,
    chance_macro=None,
    read_row=read_row,
    folder=Path(__file__).parent,
)

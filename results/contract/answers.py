"""Parses a written answer: the option that it names, and whether that is right.

The rules, in order:

1. Thoughts, special tokens and markup do not count (`answer_cleaning.py`).
2. An answer that is a letter or the text of an option, and nothing else, names that option.
3. The rest is read clause by clause (`answer_reader.py`): which options are mentioned, denied,
   declared to be the answer.

A text that does not name exactly one option is invalid. The parser does not guess.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from mapflow.results.contract.answer_cleaning import written_answer
from mapflow.results.contract.answer_mentions import compounds_joined
from mapflow.results.contract.answer_reader import named
from mapflow.results.contract.answer_tokens import NO_OPTION, Options
from mapflow.results.contract.question import Question

NOT_ASKED = "(not asked)"
"""What a model returns for a failed question; it counts for no accuracy."""

_NEW_TURN = re.compile(r"\n\s*(?:#+\s*)?(?:question|user|human|instruction)\s*:", re.IGNORECASE)


def parse_answer(text: str, options: Sequence[str], *, first_line: bool = False) -> int | None:
    """The index of the option that `text` names; None if it names none or more than one.

    With `first_line` the text's first line counts alone (thoughts and blank lines before it do
    not).

    If several options share the named text, the result is the first of them, so compare texts, not
    indices. Letters beyond the options name nothing. Digits are option texts, never indices.
    """
    if not options:
        return None
    text = written_answer(text, first_line=first_line)
    text, *options = compounds_joined([text, *options])
    asked = Options(options)
    turn = _NEW_TURN.search(text)  # a model that goes on with the next question has answered
    found = (turn and named(text[: turn.start()], asked)) or named(text, asked)
    return min(found) if len(found) == 1 and NO_OPTION not in found else None


def grade(
    question: Question, text: str, *, first_token_right: bool | None = None
) -> tuple[bool, bool]:
    """(right, valid): whether the prediction names the right answer, and whether it names any.

    If the first token is the answer (the paper's protocol), it must be the bare letter, in upper
    case; a longer answer is parsed, or its first line where the protocol says so. Options are
    compared by their *text*, because some questions of TVBench list the right one twice: then
    either letter is right. An open-ended answer is right if its first token is
    (`first_token_right`); without that knowledge, if the right answer begins with the prediction.
    With `first_capital` the rule is that of VideoLLaMA3's evaluation (`_first_capital`).
    """
    if not question.options:
        begins = bool(text) and question.target_text.startswith(text)
        return begins if first_token_right is None else first_token_right, bool(text)
    if question.max_new_tokens == 1:
        chosen = question.letters.index(text) if text in question.letters else None
    elif question.first_capital:
        chosen = _first_capital(text, question)
    else:
        chosen = parse_answer(text, question.options, first_line=question.first_line)
    if chosen is None or isinstance(question.target, str):
        return False, chosen is not None
    return question.options[chosen] == question.options[question.target], True


def grade_written(question: Question, text: str) -> tuple[bool, bool]:
    """`grade` for a model that writes as it likes, also where the protocol scores one token.

    Sentences that name one option are parsed, whatever the protocol's length. An open-ended answer
    is right if its words begin with the right answer's, after the sentence that the protocol
    begins, if the model repeats it. Digits count as their words ("3" is "three").
    """
    if question.options:
        return grade(replace(question, max_new_tokens=max(2, question.max_new_tokens)), text)
    answer = _words(written_answer(text, first_line=question.first_line))
    for prompt in question.prompts.values():
        begun = _words(prompt.answer_prefix)
        if begun and answer[: len(begun)] == begun:
            answer = answer[len(begun) :]
            break
    target = _words(question.target_text)
    return bool(target) and answer[: len(target)] == target, bool(answer)


_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def _words(text: str) -> list[str]:
    words = re.findall(r"\w+", text.casefold())
    return [_NUMBERS[int(word)] if re.fullmatch("[0-9]", word) else word for word in words]


def _first_capital(text: str, question: Question) -> int | None:
    """The option of the first of its letters in the text, else the first whose text occurs in it.

    The word "answer" is skipped. "Because" is B: the rule is kept as it is in VideoLLaMA3's code.
    """
    rest = text.replace("answer", "").replace("Answer", "")
    found = next((one for one in rest if one in question.letters), None)
    if found is not None:
        return question.letters.index(found)
    return next((i for i, one in enumerate(question.options) if one.lower() in rest.lower()), None)

"""Fuzzes answers of models: a parsed option has evidence in the text."""

from __future__ import annotations

import re
import unicodedata
from random import Random
from typing import Any

from mapflow.results.contract import answer_words
from mapflow.results.contract.answers import parse_answer
from mapflow.results.contract.question import LETTERS

from .mutation import mutated

OPTION_SETS = [
    [
        "Up and to the right.",
        "Up and to the left.",
        "Down and to the left.",
        "Down and to the right.",
    ],
    ["2", "3", "5", "4"],
    ["Left.", "Right.", "First to the left then to the right.", "Not moving at all"],
    ["yes", "no"],
    ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta"],
    ["-4", "4", "4.0", "1,4"],
    ["the man", "the man", "a woman"],
    ["Straße", "STRASSE", "ﬀ"],
    [],
]
ANSWERS = [
    "B",
    "(B)",
    "b.",
    "B. Up and to the left.",
    "Answer: B",
    "The answer is B because it goes left",
    "Best option:(B",
    "Let me think. Option (A) is no. Answer: B",
    "Up and to the left",
    "(A) or (B)",
    "A and B",
    "It is not A. It is B.",
    "I think that the man went left, then right.",
    "The correct option is D. Down and to the right.",
    "4",
    "-4",
    "it moves up; answer: no",
    "First to the left then to the right.",
    "A\nB\nC",
    "",
]
ANSWER_TOKENS = [
    *"ABCDEGZab().:,!?*_`\"'-/& 4",
    *(
        "Answer: ",
        "answer is ",
        "best option ",
        "Option ",
        " or ",
        " and ",
        " not ",
        "n't",
        " is wrong",
        "\n",
        "（Ｂ）",
    ),
    *(option for options in OPTION_SETS for option in options),
]


def answers(random: Random) -> Any:
    """A parsed option has evidence in the text. Two different stated letters give no option."""
    options = random.choice(OPTION_SETS)
    text = mutated(random, ANSWERS, ANSWER_TOKENS)
    found = parse_answer(text, options)
    if found is not None:
        assert 0 <= found < len(options), (text, options, found)
        assert _evident(text, found, options), (text, options, found)
    if len(set(options)) > 2 and not _corrects(text):
        one, other = random.sample(range(len(options)), 2)
        if options[one] != options[other]:
            ambiguous = f"Answer: {LETTERS[one]}.\n{text}\nAnswer: {LETTERS[other]}."
            assert parse_answer(ambiguous, options) is None, (ambiguous, options)
    beyond = LETTERS[len(options)]
    stated = f"Answer: ({beyond})"
    if not any(beyond.casefold() in option.casefold().split() for option in options):
        assert parse_answer(stated, options) is None, (stated, options)
    return found


def _corrects(text: str) -> bool:
    """Whether the answer takes something back ("but", "no, "), so that a later letter may win."""
    words = re.findall(r"\w+", text.casefold())
    return not answer_words.TURN.isdisjoint(words) or "no," in text.casefold()


def _evident(text: str, index: int, options: list[str]) -> bool:
    """Whether the letter or the words of an option with this text occur in the answer."""
    plain = unicodedata.normalize("NFKC", text)
    squeezed = " ".join(plain.casefold().split())
    return any(
        re.search(rf"(?<![A-Za-z]){LETTERS[k]}(?![A-Za-z])", plain, re.IGNORECASE)
        or " ".join(unicodedata.normalize("NFKC", option).casefold().split()).strip(" .")
        in squeezed
        for k, option in enumerate(options)
        if option == options[index]
    )

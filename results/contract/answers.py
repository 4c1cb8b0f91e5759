"""What a model wrote, as the option that it names, or None: never a guess.

Evidence is read in this order, and the first kind that is there decides:
the answer is one bare letter; it is one option's text; it says "answer: …" or "best option: …"; it begins with a letter
("B. …"); it mentions letters in brackets; it contains an option's text. Evidence of one kind that names two different
options, and a letter beside another option's text, are ambiguous: None, as for an answer that names nothing.
Knows nothing about models, prompts and gold answers.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from mapflow.results.contract.question import LETTERS, Question

NOT_ASKED = "(not asked)"
"""What a model hands back in place of an answer to a question that could not be asked: it counts for no accuracy."""

_WRAPPING = " \t\r\n.,;:!?'\"`*_()[]{}<>“”‘’…"  # may stand around an answer and mean nothing ("-" may: −4 is not 4)
_CUE = re.compile(
    r"\b(?:answer|(?:best|correct|right)\s+(?:option|choice))\b(?:\s+(?:would|should|must))?(?:\s+(?:is|be)\b)?[\s:=*_`\"'-]*",
    re.IGNORECASE,
)
_OPTION_WORD = re.compile(r"(?:option|choice)\b\s*", re.IGNORECASE)
_DENIAL = re.compile(
    r"\s*(?:(?:is|was|can|would|could)(?:\s+be)?\s*(?:not|n't|n’t|wrong|incorrect))\b",
    re.IGNORECASE,
)
# What may follow a letter that is meant as one; so "A man" and "I think" are words, "e.g." is no E.
_AFTER_LETTER = r"(?=\s*$|\s*\n|\s*[)\]}:,;!?*`\"']|\.(?!\w)|\s+(?:is(?!\s+(?:not|wrong|incorrect))|because|since)\b)"
_LETTER = re.compile(rf"[*_`\"']*[(\[{{]?\s*([A-Za-z]){_AFTER_LETTER}")
_BRACKETED = re.compile(r"[(\[{]\s*([A-Za-z])\s*[)\]}]")
_SECOND = re.compile(
    r"[\s*_`)\].]*(?:/|,|&|\bor\b|\band\b)[\s*_`(\[]*([A-Za-z])(?![\w'’])", re.IGNORECASE
)
_NEGATION = re.compile(
    r"\b(?:not|no|nor|neither|never|wrong|incorrect|except|cannot)\b|n't\b|n’t\b", re.IGNORECASE
)


def parse_answer(text: str, options: Sequence[str]) -> int | None:
    """The index of the option that `text` names; None where it names none, or more than one.

    Where several options share the text that was named, the first of them: compare texts, not indices. Letters beyond
    the options name nothing. Digits are option texts, never indices.
    """
    text = unicodedata.normalize("NFKC", text).strip()
    for evidence in (_whole, _after_cue, _leading_letter, _letters_in_brackets, _contained_texts):
        if named := evidence(text, options):
            return min(named) if len({options[index] for index in named}) == 1 else None
    return None


def grade(
    question: Question, text: str, *, first_token_right: bool | None = None
) -> tuple[bool, bool]:
    """(right, valid): whether the prediction names the right answer, and whether it names any.

    Where the first token is the answer it must be the bare letter (design.md, paper protocol); a written answer is
    parsed. Right is decided by an option's *text*, as some questions of TVBench list the right one twice. An
    open-ended question is right by the first token's id where the caller knows it, else where the answer begins so.
    """
    if not question.options:
        begins = bool(text) and question.target_text.startswith(text)
        return begins if first_token_right is None else first_token_right, bool(text)
    if question.max_new_tokens == 1:
        chosen = question.letters.index(text) if text in question.letters else None
    else:
        chosen = parse_answer(text, question.options)
    if chosen is None or isinstance(question.target, str):
        return False, chosen is not None
    return question.options[chosen] == question.options[question.target], True


def plain(text: str) -> str:
    """The text without case, surrounding punctuation and doubled spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).strip(_WRAPPING)


def _index(letter: str, options: Sequence[str]) -> int | None:
    index = LETTERS.find(letter.upper())
    return index if 0 <= index < len(options) else None


def _equal_options(text: str, options: Sequence[str]) -> set[int]:
    """Options whose text this is: to the letter, or else but for case and punctuation."""
    exact = {index for index, option in enumerate(options) if option.strip() == text.strip()}
    wanted = plain(text)
    return exact or {
        index for index, option in enumerate(options) if wanted and plain(option) == wanted
    }


def _whole(text: str, options: Sequence[str]) -> set[int]:
    """The text is nothing but a letter, or else nothing but an option's text."""
    bare = text.strip(_WRAPPING)
    if len(bare) == 1 and (index := _index(bare, options)) is not None:
        return {index}
    return _equal_options(text, options)


def _after_cue(text: str, options: Sequence[str]) -> set[int]:
    """What all "answer: …" statements name together; later ones do not outvote earlier ones."""
    named: set[int] = set()
    for cue in _CUE.finditer(text):
        rest = text[cue.end() :]
        if whole := _whole(rest, options) or _whole(rest.split("\n")[0], options):
            named |= whole
        elif mark := _mark(rest):
            named |= _letter_and_text(mark, rest, options)
    return named


def _leading_letter(text: str, options: Sequence[str]) -> set[int]:
    start = _OPTION_WORD.match(text)
    rest = text[start.end() :] if start else text
    mark = _mark(rest)
    return _letter_and_text(mark, rest, options) if mark else set()


def _mark(text: str) -> re.Match[str] | None:
    """The letter that the text begins with, unless it goes on to deny it."""
    mark = _BRACKETED.match(text) or _LETTER.match(text)
    return mark if mark and not _DENIAL.match(text, mark.end()) else None


def _letters_in_brackets(text: str, options: Sequence[str]) -> set[int]:
    """Letters that a sentence mentions; a sentence that negates something names nothing that way."""
    if _NEGATION.search(text):
        return set()
    indices = (_index(mark[1], options) for mark in _BRACKETED.finditer(text))
    return {index for index in indices if index is not None}


def _letter_and_text(mark: re.Match[str], text: str, options: Sequence[str]) -> set[int]:
    """The letter, and whatever else is named against it: a second letter, a list of them, one other option's text.

    Further lines are an explanation, unless they begin with a letter too and deny nothing.
    """
    index = _index(mark[1], options)
    if index is None:
        return set()
    rest, *lines = text[mark.end() :].split("\n")
    others = [_index(other[1], options) for other in _BRACKETED.finditer(rest)]
    if second := _SECOND.match(rest):
        others.append(_index(second[1], options))
    for line in lines:
        if listed := _mark(line):
            others.append(_index(listed[1], options))
    named = {index, *(other for other in others if other is not None)}
    texts = _equal_options(rest, options) or _contained_texts(rest, options)
    if len({options[i] for i in texts}) == 1 and options[index] not in {options[i] for i in texts}:
        named |= texts
    return named


def _contained_texts(text: str, options: Sequence[str]) -> set[int]:
    """Options whose text stands in the text as whole words, those inside a longer option's text left out.

    A negation outside of them makes the sentence say something else: nothing is named.
    """
    sentence = " ".join(text.casefold().split())
    spans: list[tuple[int, int, int]] = []
    for index, option in enumerate(options):
        if wanted := plain(option):
            no_sign = r"(?<![-−])" if wanted[0].isdigit() else ""
            whole_words = rf"(?<!\w)(?<!\d[.,]){no_sign}{re.escape(wanted)}(?!\w)(?![.,]\d)"
            spans += [
                (found.start(), found.end(), index) for found in re.finditer(whole_words, sentence)
            ]
    outer = [
        (start, end, index)
        for start, end, index in spans
        if not any(s <= start and end <= e and e - s > end - start for s, e, _ in spans)
    ]
    outside = list(sentence)
    for start, end, _ in outer:
        outside[start:end] = " " * (end - start)
    return set() if _NEGATION.search("".join(outside)) else {index for _, _, index in outer}

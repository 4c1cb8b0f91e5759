"""Parses a written answer: the option that it names, and whether that is right.

The parser looks for evidence in this order, and the first kind it finds decides: the answer is one
bare letter; it is the text of one option; it says "answer: …" or "best option: …"; it begins with
a letter ("B. …"); it mentions letters in brackets; it contains the text of an option. The answer
is ambiguous, and the result None, if one kind of evidence names two different options or a letter
stands beside the text of another option. The parser never guesses.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from mapflow.results.contract.question import LETTERS, Question

NOT_ASKED = "(not asked)"
"""What a model returns for a failed question; it counts for no accuracy."""

# Characters around an answer that mean nothing. "-" is not one of them: −4 is not 4.
_WRAPPING = " \t\r\n.,;:!?'\"`*_()[]{}<>“”‘’…"
_CUE = re.compile(
    r"\b(?:answer|(?:best|correct|right)\s+(?:option|choice))\b"
    r"(?:\s+(?:would|should|must))?(?:\s+(?:is|be)\b)?[\s:=*_`\"'-]*",
    re.IGNORECASE,
)
_OPTION_WORD = re.compile(r"(?:option|choice)\b\s*", re.IGNORECASE)
_DENIAL = re.compile(
    r"\s*(?:(?:is|was|can|would|could)(?:\s+be)?\s*(?:not|n't|n’t|wrong|incorrect))\b",
    re.IGNORECASE,
)
# What may follow an option's letter: "A man" and "I think" begin with words, "e.g." is not E.
_AFTER_LETTER = (
    r"(?=\s*$|\s*\n|\s*[)\]}:,;!?*`\"']|\.(?!\w)"
    r"|\s+(?:is(?!\s+(?:not|wrong|incorrect))|because|since)\b)"
)
_LETTER = re.compile(rf"[*_`\"']*[(\[{{]?\s*([A-Za-z]){_AFTER_LETTER}")
_BRACKETED = re.compile(r"[(\[{]\s*([A-Za-z])\s*[)\]}]")
_SECOND = re.compile(
    r"[\s*_`)\].]*(?:/|,|&|\bor\b|\band\b)[\s*_`(\[]*([A-Za-z])(?![\w'’])", re.IGNORECASE
)
_NEGATION = re.compile(
    r"\b(?:not|no|nor|neither|never|wrong|incorrect|except|cannot)\b|n't\b|n’t\b", re.IGNORECASE
)


def parse_answer(text: str, options: Sequence[str]) -> int | None:
    """The index of the option that `text` names; None if it names none or more than one.

    If several options share the named text, the result is the first of them, so compare texts, not
    indices. Letters beyond the options name nothing. Digits are option texts, never indices.
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

    If the first token is the answer (the paper's protocol), it must be the bare letter; a longer
    answer is parsed. Options are compared by their *text*, because some questions of TVBench list
    the right one twice. An open-ended answer is right if its first token is (`first_token_right`);
    without that knowledge, if the right answer begins with the prediction.
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
    """Options with exactly this text, else those equal up to case and punctuation."""
    exact = {index for index, option in enumerate(options) if option.strip() == text.strip()}
    wanted = plain(text)
    return exact or {
        index for index, option in enumerate(options) if wanted and plain(option) == wanted
    }


def _whole(text: str, options: Sequence[str]) -> set[int]:
    """The text is a single letter, or else the text of an option."""
    bare = text.strip(_WRAPPING)
    if len(bare) == 1 and (index := _index(bare, options)) is not None:
        return {index}
    return _equal_options(text, options)


def _after_cue(text: str, options: Sequence[str]) -> set[int]:
    """All options that "answer: …" statements name; a later statement does not replace earlier
    ones."""
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
    """The letter at the start of the text, unless the following words deny it."""
    mark = _BRACKETED.match(text) or _LETTER.match(text)
    return mark if mark and not _DENIAL.match(text, mark.end()) else None


def _letters_in_brackets(text: str, options: Sequence[str]) -> set[int]:
    """Letters mentioned in brackets; none if the text contains a negation."""
    if _NEGATION.search(text):
        return set()
    indices = (_index(mark[1], options) for mark in _BRACKETED.finditer(text))
    return {index for index in indices if index is not None}


def _letter_and_text(mark: re.Match[str], text: str, options: Sequence[str]) -> set[int]:
    """The letter and everything named besides it: further letters, or another option's text.

    Further lines count as explanation, unless they begin with a letter and deny nothing.
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
    """Options whose text occurs as whole words, except inside the text of a longer option.

    A negation elsewhere in the sentence changes its meaning, so nothing is named.
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

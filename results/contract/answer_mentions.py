"""Where a written answer holds the texts of options.

Not every occurrence is a mention. "Right" in "the right answer" describes the answer, "no" in
"no idea" denies the idea, and "two" in "twenty-two" is a part of another number.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from mapflow.results.contract import answer_words as words

# Characters around an answer that mean nothing. "-" is not one of them: −4 is not 4.
WRAPPING = " \t\r\n.,;:!?'\"`*_()[]{}<>“”‘’…。、，！？「」『』【】《》।"

_ONE = rf"(?:\d+|{'|'.join(words.NUMBERS)})"
_TENS = "twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety"
_SCALE = "hundred|thousand|million|billion"
_PLACE = "frames?|seconds?|steps?|images?|scenes?|clips?|shots?|figures?|minutes?"
_PART_BEFORE = re.compile(
    rf"(?:\b(?:{_TENS})[\s-]+|\b(?:{_SCALE}|dozen)\s+(?:and\s+)?|\b(?:minus|negative|point)\s+"
    rf"|\b(?:half|out|thirds|quarters)\s+of\s+|\b(?:{_PLACE})\s+(?:{_ONE}(?:\s*,|\s+and|\s+to)\s+)*)$"
)
_PART_AFTER = re.compile(
    rf"[\s-]+(?:{_SCALE}|dozen|thirds?|quarters?|halves|fifths|tenths|percent|point)\b"
    rf"|\s+and\s+an?\s+(?:half|quarter|third)\b|\s+out\s+of\b|\s*%"
)
_SUM = re.compile(
    rf"(?<![\w.,]){_ONE}(?:\s*(?:[+×*]|\b(?:plus|minus|times)\b)\s*{_ONE})+(?![\w])\s*[=≈]?"
)
_WORD = re.compile(r"[^\W\d_]+")
_PREFIXED = re.compile(r"\b(anti|counter|non|un)[\s-]+([^\W\d_]{3,})", re.IGNORECASE)
_BRITISH = re.compile(r"\banti-?\s?clockwise\b", re.IGNORECASE)
_ARTICLES = ("a", "an", "the")
_VERDICTS = words.PREDICATE | words.WRONG
_NAMED = "|".join(sorted((words.ANSWER | words.OPTION | {"one"}), key=len, reverse=True))
_DESCRIBES = re.compile(rf"\s+(?:{_NAMED})\b")
_VERDICT_OF_LETTER = re.compile(
    r"(?<![\w'’])(?-i:[A-Z])[)\]*\"']*\s+(?:(?!(?:and|or|so|but)\b)[\w'’]+\s+)??"
    r"(?:(?:is|are|isn't|isn’t|was|not|also|really|looks?|seems?|sounds?|be|the|most|clearly|only)\s+)+$"
)
_AFTER_NO = re.compile(
    r"\s*(?:$|[^\w\s]|\n)|\s+(?:the|it|he|she|they|there|this|that|these|those|an?|i|we|"
    rf"{'|'.join(words.REASON)})\b"
)


def plain(text: str) -> str:
    """The text without case, surrounding punctuation and doubled spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).strip(WRAPPING)


def compounds_joined(texts: Sequence[str]) -> list[str]:
    """An answer and its options, with "counter clockwise" and "non-moving" as one word each.

    A prefix is joined to a word of an option, which alone would mean the contrary. "Anti-clockwise"
    is British for "counter-clockwise".
    """
    known = {word for option in texts[1:] for word in _WORD.findall(option.lower())}

    def joined(match: re.Match[str]) -> str:
        whole = match[1] + match[2]
        return whole if {match[2].lower(), whole.lower()} & known else match[0]

    texts = [_PREFIXED.sub(joined, text) for text in texts]
    return [_BRITISH.sub("counterclockwise", text) for text in texts]


def number_names(option: str) -> set[str]:
    """The other way to write a number: "3" for "three", "three" for "3"."""
    if option in words.NUMBERS:
        return {str(words.NUMBERS.index(option))}
    if option.isascii() and option.isdecimal() and int(option[:4]) < len(words.NUMBERS):
        return {words.NUMBERS[int(option)]} if len(option) < 3 else set()
    return set()


def text_mentions(text: str, options: Sequence[str]) -> list[tuple[int, int, frozenset[int], bool]]:
    """(start, end, options, weak) of every option's text, except inside a longer one.

    A number may be written as a word; "one", which is also a pronoun, is weak. An option's verb may
    be inflected ("moves left" for "Move left") where no word of another option occurs.
    """
    lowered = "".join(c.lower() if len(c.lower()) == 1 else c for c in text)
    texts = [plain(option) for option in options]
    first = [options.index(option) for option in options]
    sums = [found.span() for found in _SUM.finditer(lowered)]
    spans: dict[tuple[int, int], set[int]] = {}
    for index, option in enumerate(texts):
        for wanted in {option, *number_names(option)}:
            if not wanted or (len(wanted) == 1 and wanted.isascii() and wanted.isalpha()):
                continue
            article, _, rest = wanted.partition(" ")
            freely = (
                article in _ARTICLES and [one.partition(" ")[2] for one in texts].count(rest) == 1
            )
            pattern = _pattern(wanted, f"(?:{'|'.join(_ARTICLES)})" if rest and freely else None)
            for found in re.finditer(pattern, lowered):
                if not _is_part(wanted, lowered, text, found.span(), sums):
                    spans.setdefault(found.span(), set()).add(first[index])
    if not spans:
        spans = _inflected(lowered, texts, first)
    outer: list[tuple[int, int, set[int]]] = []
    for (start, end), names in sorted(spans.items(), key=lambda one: (one[0][0], -one[0][1])):
        if not outer or end > outer[-1][1]:
            outer.append((start, end, names))
    mentions = []
    for start, end, names in outer:
        exact = {i for i in names if options[i].strip(WRAPPING) == text[start:end]}
        mentions.append((start, end, frozenset(exact or names), text[start:end] == "one"))
    return mentions


def _pattern(wanted: str, head: str | None = None) -> str:
    """Finds the text as whole words; `head` is the pattern of its first word."""
    first, *rest = wanted.split()
    pattern = r"\s+".join([head or re.escape(first), *map(re.escape, rest)])
    if re.match(r"[\w]", wanted[0]) and wanted[0] < "\u0e00":
        sign = r"(?<![-–−])(?<!\d[.,/:])" if wanted[0].isdigit() else ""
        pattern = rf"(?<![^\W\u0e00-\uffff]){sign}{pattern}"
    if re.match(r"[\w]", wanted[-1]) and wanted[-1] < "\u0e00":
        times = "x?" if wanted.isdecimal() else ""
        pattern += rf"{times}(?![^\W\u0e00-\uffff])(?![.,/:–-]\d)"
    return pattern


def _is_part(
    wanted: str, lowered: str, text: str, span: tuple[int, int], sums: list[tuple[int, int]]
) -> bool:
    """Whether an option's text is part of a longer phrase with another meaning.

    Examples: a larger number or a sum, "the right answer", "A is right", "no idea".
    """
    start, end = span
    before, after = lowered[max(0, start - 40) : start], lowered[end : end + 40]
    if wanted in words.NUMBERS or wanted.isdecimal():
        tens = wanted in _TENS.split("|") and re.match(r"[\s-]+(?:one|two|three|four|five)", after)
        within = any(low <= start and end <= high for low, high in sums)
        return bool(tens or within or _PART_BEFORE.search(before) or _PART_AFTER.match(after))
    if wanted in words.NEGATION:
        return not _AFTER_NO.match(after)
    if wanted in _VERDICTS:
        letter = _VERDICT_OF_LETTER.search(text[max(0, start - 40) : start])
        return bool(letter or _DESCRIBES.match(after))
    return False


def _inflected(
    lowered: str, texts: Sequence[str], first: Sequence[int]
) -> dict[tuple[int, int], set[int]]:
    """Options of several words whose verb, the first of them, has another ending in the text."""
    own = [set(option.split()) for option in texts]
    said = set(re.findall(r"\w+", lowered))
    found: dict[tuple[int, int], set[int]] = {}
    for index, option in enumerate(texts):
        verb, _, rest = option.partition(" ")
        stem = re.sub(r"(?:es|s|ing|ed|e)$", "", verb)
        others = {word for i, one in enumerate(own) if first[i] != first[index] for word in one}
        if not rest or len(stem) < 3 or not verb.isascii() or said & (others - own[index]):
            continue
        pattern = _pattern(option, rf"{re.escape(stem)}(?:e|es|s|ed|ing)?")
        for one in re.finditer(pattern, lowered):
            found.setdefault(one.span(), set()).add(first[index])
    return found

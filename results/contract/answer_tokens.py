"""A written answer as words and mentions of options.

A *mention* is an option's text, or its letter if brackets, punctuation or a neighbouring word
mark it as one ("(B)", "B.", "option B", "is B", "B is"). Mentions that are joined ("A or B") are
one, and so is a letter with its text. A list of all options, letter and text, mentions none.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mapflow.results.contract import answer_words as words
from mapflow.results.contract.answer_mentions import (
    WRAPPING,
    number_names,
    plain,
    text_mentions,
)
from mapflow.results.contract.question import LETTERS

NO_OPTION = -1
"""What a letter names that is not the letter of any option."""

_LATIN = "A-Za-z0-9\u00aa\u00b5\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff"
_OTHER = (
    "\u0370-\u060b\u060d-\u061a\u0620-\u0963\u0966-\u1dff\u2c00-\u2dff\u3041-\u30fa\u30fc-\ud7ff"
    "\uf900-\ufeff"
)
_TOKEN = re.compile(
    r"(?P<line>\n)"
    rf"|(?P<dotted>(?<![{_LATIN}])(?:[A-Za-z]\.){{2,}}(?=\W|$))"
    r"|(?P<number>\d+(?:[.,:/]\d+)*)"
    rf"|(?P<word>[{_LATIN}]+(?:['’-][{_LATIN}]+)*)"
    rf"|(?P<other>[{_OTHER}]+)"
    r"|(?P<sign>[^\s\"'`*_#>|“”‘’「」『』【】《》()\[\]{}])"
)
_PAIR = re.compile(r"\(?([A-Z])[.):]+\s*(.+)", re.DOTALL)
_ITEM = re.compile(r"^\s*1[.)]\s+")  # "1) B"
_UNITS = frozenset("+#%°")
ENDS, SOFT, COMMAS = frozenset(".!?;。।؟…"), frozenset(":-–—=→"), frozenset(",、،/&+")
_WITH_SPACES = re.compile("[\u0370-\u0dff]")
FILLERS = frozenset(
    "the a an with for on to towards toward la el lo le die der das het o é de".split()  # noqa: SIM905
)
_ARTICLES = frozenset({"the", "la", "el", "le", "die", "das"})
_PHRASES = tuple(
    (re.compile(rf"\b(?:{phrase})\b", re.IGNORECASE), meaning)
    for phrase, meaning in words.PHRASES.items()
)
CUES = (
    words.ANSWER
    | words.OPTION
    | words.CHOOSE
    | words.CONCLUDE
    | words.LINK
    | words.COPULA
    | words.TURN
    | words.HEDGE
)
_LEADS = CUES | words.NEGATION | words.WRONG | words.AGAINST | words.REASON
_OPENINGS = words.TURN | words.REASON | words.JOIN | words.CONCLUDE
_FOLLOWS = (
    words.COPULA
    | words.PREDICATE
    | words.WRONG
    | words.REASON
    | words.AGAINST
    | words.NEGATION
    | words.TURN
    | {"it"}
)
_FOLLOWS_OTHER = _FOLLOWS | words.JOIN | words.OPTION | words.ANSWER | words.CHOOSE


@dataclass(frozen=True)
class Token:
    """kind: mention, letter (a single one that is not known to be a mention), word, other, sign,
    line.

    names: the options that a mention or letter stands for; closed: whether punctuation follows
    directly; marked: whether the letter stands in brackets, quotes or bold type.
    """

    kind: str
    text: str
    start: int
    names: frozenset[int] = frozenset()
    by_letter: bool = False
    joined: bool = False
    marked: bool = False
    closed: bool = False
    weak: bool = False

    def among(self, vocabulary: frozenset[str]) -> bool:
        """Whether the word is in the vocabulary; runs of a script without spaces, if a word is
        in the run."""
        if self.kind in ("word", "sign"):
            if self.text in vocabulary or self.text.isalnum():
                return self.text in vocabulary
            own = self.text.removesuffix("'s").removesuffix("’s")
            return own in vocabulary or self._last_part in vocabulary
        if self.kind != "other":
            return False
        if _WITH_SPACES.match(self.text):
            return self.text in vocabulary
        return any(word in self.text for word in vocabulary if word[0] > "\u0dff")

    @property
    def _last_part(self) -> str:
        """What follows an apostrophe: "option" of "l'option", but not "s" of "it's"."""
        part = self.text.replace("’", "'").rpartition("'")[2]
        return part if len(part) > 1 else self.text

    @property
    def denies(self) -> bool:
        if self.kind == "other":
            rest = self.text
            for harmless in words.NOT_NEGATIONS:
                rest = rest.replace(harmless, "")
            return replace(self, text=rest or "-").among(words.NEGATION | words.WRONG)
        return self.among(words.NEGATION | words.WRONG) or (
            self.kind == "word" and self.text.replace("’", "'").endswith(("n't", "n'est"))
        )


class Options:
    """The options of one question, found in texts.

    `names` are indices; of options with the same text the first stands for all. `words` are the
    words of all options, in lower case.
    """

    def __init__(self, options: Sequence[str]) -> None:
        self._options = tuple(options)
        self._first = [self._options.index(option) for option in self._options]
        self._texts = [option.strip(WRAPPING) for option in self._options]
        self._plain = [plain(option) for option in self._options]
        self.words = frozenset(word for option in self._plain for word in option.split())

    def tokens(self, text: str) -> list[Token]:
        """Words, punctuation and mentions of the text in order."""
        for phrase, meaning in _PHRASES:
            if not any(phrase.search(option) for option in self._options):
                text = phrase.sub(meaning, text)
        return self._joined(self._without_echo(self._valid(self._tokens(text))))

    def whole(self, text: str) -> set[int]:
        if "1" not in self._plain:
            text = _ITEM.sub("", text)
        bare = text.strip(WRAPPING + "-–—")
        if len(bare) == 1 and bare.isascii() and bare.isalpha():
            index = LETTERS.index(bare.upper())
            if index < len(self._options):
                names = self._letter(bare)
                return {index} if len(names) == 1 else set(names)
        paired = _PAIR.fullmatch(text.strip())
        index = LETTERS.index(paired[1]) if paired else 0
        if paired and plain(paired[2]) in self._plain[index : index + 1]:
            return {self._first[index]}
        exact = {self._first[i] for i, o in enumerate(self._options) if o.strip() == text.strip()}
        wanted = plain(text)
        return exact or {
            self._first[i]
            for i, option in enumerate(self._plain)
            if wanted and (option == wanted or wanted in number_names(option))
        }

    def _letter(self, letter: str) -> frozenset[int]:
        """The option with this letter; a letter that is another option's text is both."""
        index = LETTERS.index(letter.upper())
        named = {self._first[index]} if index < len(self._options) else {NO_OPTION}
        for one in {letter, letter.upper()} if letter.islower() else {letter}:
            if one in self._texts:
                named.add(self._first[self._texts.index(one)])
        return frozenset(named)

    def _tokens(self, text: str) -> list[Token]:
        texts, tokens, end = deque(text_mentions(text, self._options)), [], 0
        for found in _TOKEN.finditer(text):
            while texts and texts[0][0] <= found.start():
                start, end, names, weak = texts.popleft()
                tokens.append(Token("mention", text[start:end], start, names, weak=weak))
            if found.start() < end:
                continue
            kind, word = found.lastgroup or "sign", found[0]
            if kind == "word" and len(word) == 1 and word.isascii() and word.isalpha():
                before = text[max(0, found.start() - 3) : found.start()].rstrip(" ")[-1:]
                after = text[found.end() : found.end() + 3].lstrip(" ")[:1]
                marked = before + after in ("()", "[]", "{}", "**", "__", "``", "<>", '""', "''", "“”", "「」", "《》", "【】")  # fmt: skip  # noqa: E501
                closed = text[found.end() : found.end() + 1] in tuple(").]:")
                tokens.append(
                    Token(
                        "letter",
                        word,
                        found.start(),
                        self._letter(word),
                        by_letter=True,
                        marked=marked,
                        closed=closed,
                    )
                )
            elif self._is_ordinal(tokens, word):
                said = tokens.pop().text
                index = words.ORDINALS.index(said) if said != "last" else len(self._options) - 1
                tokens.append(
                    Token(
                        "mention", word, found.start(), self._letter(LETTERS[index]), by_letter=True
                    )
                )
            else:
                kind = "word" if kind in ("number", "dotted") else kind
                tokens.append(Token(kind, word.lower(), found.start()))
        tokens += [Token("mention", text[s:e], s, n, weak=w) for s, e, n, w in texts]
        return tokens

    def _is_ordinal(self, tokens: list[Token], word: str) -> bool:
        """Whether the word ends "the second option"."""
        return (
            bool(tokens)
            and tokens[-1].text in {*words.ORDINALS, "last"}
            and word.lower() in words.OPTION
        )

    def _valid(self, tokens: list[Token]) -> list[Token]:
        """Letters become mentions or words."""
        found: list[Token] = []
        for i, token in enumerate(tokens):
            if token.kind == "letter":
                kind = "mention" if self._is_label(tokens, i) else "word"
                token = replace(token, kind=kind, text=token.text.lower())
            found.append(token)
        return found

    def _is_label(self, tokens: list[Token], i: int) -> bool:
        token = tokens[i]
        before = tokens[i - 1] if i else None
        after = tokens[i + 1] if i + 1 < len(tokens) else None
        first = i - 1 if before is not None and before.text in _ARTICLES else i  # "La B es …"
        starts = first == 0 or tokens[first - 1].kind in ("line", "sign", "letter")
        plus = after is not None and after.text == "+"
        sum_of_letters = plus and [one.kind for one in tokens[i + 2 : i + 3]] == ["letter"]
        unit = after is not None and after.text in _UNITS and after.start == token.start + 1
        if unit and not sum_of_letters:
            return False  # C++, C#
        line_start = before is None or before.kind == "line"
        ends = after is None or after.kind in ("line", "sign")
        beyond = token.names == {NO_OPTION}
        if token.text == "I" and beyond and not ends and not token.marked:
            return False  # the pronoun
        if token.marked:
            return token.text.isupper() or not beyond
        if token.text.islower():
            stops = after is None or after.kind == "line" or after.text in ENDS
            stops = stops or (token.text != "a" and after is not None and after.kind == "sign")
            strong = words.ANSWER | words.OPTION | words.CHOOSE
            led = any(one.among(strong) for one in tokens[max(0, i - 4) : i])
            own_text = after is not None and after.kind == "mention" and after.names == token.names
            return not beyond and (
                (stops and led and is_led(tokens, i))
                or (line_start and (token.closed or own_text))
                or (line_start and (after is None or after.kind == "line"))
            )
        if starts and ends and first == i:
            return True
        follows = after is not None and (
            after.kind == "letter"
            or (after.kind == "mention" and not self._is_article(tokens, i))
            or (after.kind == "word" and after.among(_FOLLOWS))
            or any(
                one.kind == "other" and one.among(_FOLLOWS_OTHER) for one in tokens[i + 1 : i + 4]
            )
        )
        if after is not None and after.among(words.JOIN) and i + 2 < len(tokens):
            joined = tokens[i + 2].kind == "letter"
            follows = follows or joined or tokens[i + 2].denies or is_led(tokens, i)
            starts = starts or joined
        if is_led(tokens, i):
            return ends or follows or token.text not in "AI"
        starts = starts or (before is not None and before.among(_OPENINGS))
        return starts and (follows or ends) and (token.text != "I" or token.closed)

    def _is_article(self, tokens: list[Token], i: int) -> bool:
        """Whether "A" before an option's text is an article: "A pig", but not "A no"."""
        nouns = words.VERDICTS.isdisjoint(self._plain)
        return tokens[i].text == "A" and not tokens[i].closed and nouns

    def _without_echo(self, tokens: list[Token]) -> list[Token]:
        """Without lists of all options in their order: letter and text, or letters alone."""
        letters = [(i, True) for i in range(len(self._options))]
        both = [pair for i, _ in letters for pair in ((i, True), (self._first[i], False))]
        tokens = self._without(tokens, both, None)
        return self._without(tokens, letters, words.JOIN | COMMAS) if len(letters) > 2 else tokens

    def _without(
        self, tokens: list[Token], expected: list[tuple[int, bool]], between: frozenset[str] | None
    ) -> list[Token]:
        """Without the mentions that are `expected` ((option, by letter)) if nothing but words of
        `between` (None: but punctuation) is between them."""
        places = [i for i, token in enumerate(tokens) if token.kind == "mention"]
        size, kept, copied, k = len(expected), [], 0, 0
        while k + size <= len(places):
            window = places[k : k + size]
            if all(
                tokens[at].by_letter == letter and self._first[index] in tokens[at].names
                for at, (index, letter) in zip(window, expected, strict=True)
            ) and all(
                token.kind == "mention"
                or token.among(words.OPTION)
                or (token.kind in ("sign", "line") if between is None else token.among(between))
                for token in tokens[window[0] : window[-1] + 1]
            ):
                kept += [*tokens[copied : window[0]], Token("line", "\n", tokens[window[0]].start)]
                copied, k = window[-1] + 1, k + size
            else:
                k += 1
        return [*kept, *tokens[copied:]]

    def _joined(self, tokens: list[Token]) -> list[Token]:
        """Mentions that are joined become one: "A or B", and a letter with its text."""
        found: list[Token] = []
        lists, i = _within_lists(tokens), 0
        while i < len(tokens):
            token = tokens[i]
            i += 1
            while token.kind == "mention":
                j, joined = _next_mention(tokens, i, token, lists)
                if j is None:
                    break
                other = tokens[j]
                token = replace(
                    token,
                    names=token.names | other.names,
                    by_letter=token.by_letter or other.by_letter,
                    joined=token.joined or (joined and token.names != other.names),
                    weak=token.weak and other.weak,
                )
                i = j + 1
            found.append(token)
        return found


def is_led(tokens: list[Token], i: int) -> bool:
    """Whether a word that leads to an option precedes, articles and prepositions left out."""
    k = i - 1
    while k >= 0 and (
        (tokens[k].kind == "word" and tokens[k].text in FILLERS and not tokens[k].by_letter)
        or tokens[k].text in SOFT
    ):
        k -= 1
    return k >= 0 and tokens[k].kind in ("word", "other") and tokens[k].among(_LEADS)


def _next_mention(
    tokens: list[Token], i: int, token: Token, lists: set[int]
) -> tuple[int | None, bool]:
    """The mention that is joined to the one before position i, and whether by "or", "and", ","."""
    if i >= len(tokens):
        return None, False
    between: list[Token] = []
    for k in range(i, min(i + 4, len(tokens))):
        other = tokens[k]
        if other.kind == "mention":
            if not between:
                return k, False
            if len(between) == 1 and between[0].text in {".", ":", "-", "–", "—", ","}:
                pair = token.by_letter != other.by_letter
                same = token.names == other.names
                if pair and (same or between[0].text != ","):
                    return k, False
            if [one.text for one in between] == [","]:
                return (k, True) if k in lists else (None, False)
            join = between[0].among(words.JOIN) or between[0].text in COMMAS
            filled = all(
                one.among(words.JOIN | words.OPTION | words.HEDGE) or one.text in COMMAS | FILLERS
                for one in between
            )
            return (k, True) if join and filled else (None, False)
        if other.kind == "line":
            return None, False
        between.append(other)
    return None, False


def _within_lists(tokens: list[Token]) -> set[int]:
    """The positions of mentions in a list that ends with "and", "or" and a mention."""
    found: set[int] = set()
    for k in range(len(tokens) - 2, -1, -1):
        rest = tokens[k + 1 : k + 4]
        if tokens[k].kind != "mention" or not (rest[0].text == "," or rest[0].among(words.JOIN)):
            continue
        following = next((i for i, one in enumerate(rest) if one.kind == "mention"), 0)
        ends = any(one.among(words.JOIN) for one in rest[:following])
        if following and (ends or k + 1 + following in found):
            found.add(k)
    return found

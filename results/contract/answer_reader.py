"""Reads a written answer clause by clause: which options it mentions, denies and declares.

- A *mention* is an option's letter or text (`answer_tokens.py`). It is *denied* ("not B", "B is
  wrong", "rather than B"), *declared* ("the answer is B", "B is correct", "so B", a letter that is
  a clause of its own), or neither.
- Declared mentions decide. They must agree, unless a later one replaces the earlier ones: after
  "but", "wait" …, or because it is called the final answer. Hedged ones ("could be B", "A or B")
  count only if there are no firm ones. The letters of a list ("A: …", "B: …") declare nothing.
- Without declarations all mentioned letters must agree, and nothing may be said of them ("B is a
  …"); without letters, all mentioned texts.
- A letter with the text of another option, or a letter that no option has, names nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mapflow.results.contract import answer_words as words
from mapflow.results.contract.answer_tokens import (
    COMMAS,
    CUES,
    ENDS,
    FILLERS,
    SOFT,
    Options,
    Token,
)


@dataclass
class _Clause:
    """A stretch of tokens between punctuation or conjunctions.

    turn: a word such as "but" came before; reason: it explains ("because …"); question: it ends
    with a question mark; starts, ends: at the start and the end of a line; soft: a colon or dash
    follows.
    """

    tokens: list[Token] = field(default_factory=list)
    turn: bool = False
    reason: bool = False
    question: bool = False
    starts: bool = False
    ends: bool = False
    soft: bool = False
    mentioning: bool = False  # kept beside `mentions`, which takes time to count

    @property
    def mentions(self) -> list[int]:
        return [i for i, token in enumerate(self.tokens) if token.kind == "mention"]

    @property
    def heads_line(self) -> bool:
        """Nothing but a letter ("B", "Option B") at the start of a line, or before a colon, that
        goes on: an answer or a list's entry."""
        *noun, last = self.tokens
        return (
            last.by_letter
            and all(token.among(words.OPTION) for token in noun)
            and (self.starts or self.soft)
            and not self.ends
        )


def named(text: str, options: Options) -> set[int]:
    """The options that the text names: their indices, and `NO_OPTION` for a letter beyond them."""
    return options.whole(text) or _decided(_clauses(options.tokens(text), options.words))


def _decided(clauses: list[_Clause]) -> set[int]:
    state: set[int] = set()
    level, turn, support = -1, False, -1
    mentions: list[tuple[Token, _Clause]] = []
    heads = {clause.tokens[-1].names for clause in clauses if clause.heads_line}
    for clause in clauses:
        turn = turn or clause.turn
        if clause.question:
            continue
        denied = _denied(clause)
        for i in (i for i in clause.mentions if i not in denied):
            token = clause.tokens[i]
            mentions.append((token, clause))
            own = _level(clause, i)
            if own is None or (clause.heads_line and len(heads) > 1):
                continue
            if own > level or (turn and own >= 1):
                state, support = set(token.names), token.start
            elif own == level or own >= 1 or (token.joined and not _is_hedged(clause)):
                state |= token.names
            level, turn = max(level, own), False
    if not state:
        letters = [(token, clause) for token, clause in mentions if token.by_letter]
        chosen = [token for token, clause in letters if not _is_described(clause, token)]
        if letters and not chosen:
            return set()
        chosen = chosen if letters else [token for token, _ in mentions if not token.weak]
        state = {name for token in chosen for name in token.names}
        support = chosen[0].start if chosen else -1
    return _contradicted(state, support, mentions)


def _is_described(clause: _Clause, token: Token) -> bool:
    """Whether the clause says something of the letter ("B is a distractor"): it is known neither to
    choose the letter nor to deny it."""
    after = clause.tokens[clause.tokens.index(token) + 1 :]
    return bool(after) and after[0].among(words.COPULA)


def _contradicted(
    state: set[int], support: int, mentions: Sequence[tuple[Token, _Clause]]
) -> set[int]:
    """Adds an option whose text follows the statement, if it is the only one there."""
    later = {
        name
        for token, clause in mentions
        if token.start > support and not token.by_letter and not clause.reason
        if not token.weak
        for name in token.names
    }
    return state | later if len(later) == 1 else state


def _clauses(tokens: list[Token], named: frozenset[str]) -> list[_Clause]:
    """Split at punctuation and conjunctions. A clause of cues alone ("Hence,") begins the next.

    A word such as "but" marks its clause; at the start of a sentence ("However, …"), all clauses
    up to the next mention. Words of options (`named`) are no verdicts: "Option B: right".
    """
    found: list[_Clause] = []
    clause = _Clause(starts=True)
    sentence_starts, open_turn, after_soft = True, False, False

    def close(*, carry: bool = False, line: bool = False) -> None:
        nonlocal clause
        following = _Clause(starts=line, turn=open_turn)
        clause.ends = line
        verdict = after_soft and found and clause.tokens and not clause.mentions
        if verdict and all(
            token.among(words.VERDICTS) and token.text not in named for token in clause.tokens
        ):
            found[-1].tokens += clause.tokens  # "A: no", "B, correct", "A? No."
            found[-1].question = False
        elif clause.mentions:
            found.append(clause)
        elif carry and clause.tokens and all(_is_cue(token) for token in clause.tokens):
            following.tokens, following.turn = clause.tokens, clause.turn or open_turn
        elif line or not clause.tokens:
            following.starts = line or clause.starts
        clause = following

    for i, token in enumerate(tokens):
        after = tokens[i + 1].text if i + 1 < len(tokens) else ""
        if token.kind == "line":
            close(carry=True, line=True)
            sentence_starts, after_soft = True, False
        elif token.kind == "sign" and token.text in ENDS:
            clause.question = token.text in "?؟"
            asked = clause.question and bool(clause.mentions)
            close(line=after in ("", "\n"))
            sentence_starts, after_soft = True, asked
        elif token.kind == "sign" and token.text in COMMAS | SOFT:
            if token.text in COMMAS or clause.mentions:
                mentioned, clause.soft = bool(clause.mentions), token.text in SOFT
                close(carry=True)
                after_soft = mentioned
        else:
            if token.among(words.TURN) or (token.text == "no" and after == "," and sentence_starts):
                close()
                clause.turn = True
                open_turn = open_turn or sentence_starts
            elif token.among(words.REASON):
                close()
                clause.reason = True
            elif token.among(words.CONCLUDE | words.AGAINST):
                close(carry=True)
            elif token.among(words.JOIN) and clause.mentioning:
                close()
            clause.tokens.append(token)
            clause.mentioning = clause.mentioning or token.kind == "mention"
            sentence_starts = False
            open_turn = open_turn and token.kind != "mention"
    close(line=True)
    return found


def _is_cue(token: Token) -> bool:
    return token.among(CUES | words.JOIN) or token.text in FILLERS


def _denied(clause: _Clause) -> set[int]:
    """The positions of the mentions that the clause denies."""
    denied: set[int] = set()
    tokens, mentions = clause.tokens, clause.mentions
    for k, token in enumerate(tokens):
        if token.among(words.AGAINST):
            denied |= {i for i in mentions if i > k}
            continue
        if not token.denies:
            continue
        before = [i for i in mentions if i < k]
        after = [i for i in mentions if i > k]
        about = tokens[before[-1] + 1 : k] if before else []
        back = bool(before) and (
            not after
            or token.among(words.WRONG)
            or any(one.among(words.COPULA) for one in about)
            or (token.kind == "other" and len(about) <= 1 and not _denies_next(tokens, k))
        )
        denied |= {before[-1]} if back else set(after)
    return denied


def _denies_next(tokens: list[Token], k: int) -> bool:
    """Whether the negation at k belongs to the mention right after it."""
    following = tokens[k + 1].kind == "mention" if k + 1 < len(tokens) else False
    return following and tokens[k].text.endswith(words.PREFIXED)


def _level(clause: _Clause, i: int) -> int | None:
    """2: called the correct or final answer; 1: declared; 0: hedged; None: only mentioned."""
    tokens = clause.tokens
    before, after = tokens[:i], tokens[i + 1 :]
    named = any(token.among(words.ANSWER) for token in before)
    option = any(token.among(words.OPTION) for token in before)
    final = any(token.among(words.FINAL) for token in before)
    leading = [token for token in before if not token.among(words.JOIN)]
    leading = [token for token in leading if token.text not in FILLERS]
    cued = all(_is_cue(token) for token in before) and bool(leading or tokens[i].by_letter)
    predicate = tokens[i].by_letter and any(
        token.among(words.PREDICATE)
        or (token.kind == "other" and token.among(words.CHOOSE | words.ANSWER))
        for token in after
    )
    declared = (
        named
        or (option and final)
        or any(token.among(words.CHOOSE) for token in before)
        or (cued and (not after or after[0].denies or (bool(before) and tokens[i].by_letter)))
        or predicate
    )
    several = any(token.kind == "mention" for token in before)
    if not declared or clause.reason or (several and not predicate):
        return None
    if tokens[i].joined or _is_hedged(clause):
        return 0
    return 2 if final and (named or option) else 1


def _is_hedged(clause: _Clause) -> bool:
    return any(token.among(words.HEDGE) for token in clause.tokens)

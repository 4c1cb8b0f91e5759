"""Splits the prompts of lmms-eval's other tasks into stem, options and template.

1. Options are a series of lines that begin with A, B, C, …, with a, b, c, … or with 1, 2, 3, … in
   one style ("A. x", "(A) x", "A) x", "A: x", "A、x", "（A）x", "Option A: x"). Without such lines,
   options in brackets within a line count ("(A) x (B) y"). An option is its mark and text; lines
   between two options belong to the first of them.
2. If the task's document lists its options, the series is the one with these texts. Otherwise it is
   the longest series of capitals, else of small letters, and the last of equally long ones; numbers
   count only after a line like "Options:", since events are numbered too.
3. Before the options, a line "Options:" or "Choices:" is a label, and so is "Question:" at the
   start of the stem. The stem is the document's question if the prompt contains it. Otherwise
   instructions ("Select the best answer …") and everything before the last of them are template.
4. Everything after the options is template. Without options the whole prompt is the stem.
5. Refused where this would be a guess: a prompt that asks for an option without a series that is
   recognised, series with gaps, a last series that is shorter than an earlier one, and a series
   that is not the document's.

The texts of the parts, joined, are the prompt.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import LETTERS, Clip, Part, Prompt, Question
from mapflow.results.contract.visible_text import quoted

_SERIES = {
    "capital": (r"[A-Z]", tuple(LETTERS)),
    "small": (r"[a-z]", tuple(LETTERS.lower())),
    "number": (r"\d{1,2}", tuple(str(number) for number in range(1, 27))),
    "number from 0": (r"\d{1,2}", tuple(str(number) for number in range(27))),
}
"""Kind of mark → (its pattern, the marks in order)."""
_OPENINGS = (
    r"[(（\[【]({mark})[)）\]】][.:：、]?",
    r"({mark})[.．](?=\s|\*\*|[^\x00-\x7f])",
    r"({mark})[)）]",
    r"({mark})[:：、]",
    r"({mark})[ \t]+[-–—][ \t]",
)
_LEAD = r"^[ \t]*(?:[-*•][ \t]+)?(?:\*\*)?(?:(?:[Oo]ption|[Cc]hoice)[ \t]+)?"
_INLINE = r"(?<!\S)[(（]({mark})[)）]"
_OPTIONS_LABEL = re.compile(
    r"(?:^|\n)[ \t]*(?:options?|choices?|candidates?|选项)[ \t]*[:：]?[ \t]*\s*$", re.IGNORECASE
)
_STEM_LABEL = re.compile(r"\s*question[ \t]*:[ \t]*", re.IGNORECASE)
_INSTRUCTION = re.compile(
    r"[ \t]*(?:(?:(?:please|carefully|now)\b[ ,]*)*"
    r"(?:select|choose|pick|respond|answer|reply|give|provide|output|return|read|watch|use|refer"
    r"|based on|given|you (?:are|will|must|should))\b[^?]*"
    r"\b(?:options?|letters?|choices?|multiple[- ]choice|best answer|subtitles?)\b[^?]*"
    r"|(?:this|the) video(?:'s)? subtitles are\b.*)$",
    re.IGNORECASE,
)
_ASKS = re.compile(
    r"\b(?:select|choose|pick|respond|answer|reply|give|provide|output|return)\b[^?\n]*"
    r"\b(?:options?|letters?|choices?)\b[^?\n]*(?:\n|$)|选项",
    re.IGNORECASE,
)
_EDGES = " \t\r\n.,;:!?。，；：！？"

Span = tuple[int, int]


@dataclass(frozen=True)
class _Found:
    """A series of options: their kind and marks, and start, text start and end of each.

    `stray` is a mark of the same form that would have belonged to it, had none been left out.
    """

    kind: str
    marks: tuple[str, ...]
    spans: tuple[tuple[int, int, int], ...]
    stray: str | None = None

    def texts(self, prompt: str) -> list[str]:
        return [prompt[text:end] for _, text, end in self.spans]


def split_prompt(
    prompt: str, options: Sequence[str] = (), question: str | None = None
) -> tuple[Part, ...]:
    """The parts of the prompt in reading order.

    options, question: as the task's document lists them, if it does. Raises MapflowError if the
    prompt contains these options in a form that is not recognised.
    """
    return _split(prompt, _find_options(prompt, options), question)


def foreign_question(
    prompt: str,
    *,
    question_id: str,
    video_id: str,
    task: str,
    clip: Clip,
    document: Mapping[str, Any],
    max_new_tokens: int,
    until: Sequence[str] = (),
) -> Question:
    """A question of another task: its own prompt is the whole user turn.

    Its right answer is not known here (`target` is empty): the task's own rules score answers.
    Raises as `split_prompt`.
    """
    found = _find_options(prompt, document_options(document))
    stem = document.get("question")
    turn = _split(prompt, found, stem if isinstance(stem, str) else None)
    bare = Prompt("", "", "", "", "", "", "")
    return Question(
        question_id=question_id,
        video_id=video_id,
        task=task,
        clip=clip,
        stem="".join(part.text for part in turn if part.kind == "stem"),
        options=tuple(found.texts(prompt)) if found else (),
        marks=found.marks if found else (),
        target="",
        protocol="task",
        prompts={"completion": bare, "chat": bare},
        max_new_tokens=max_new_tokens,
        until=tuple(until),
        turn=turn,
    )


_LISTS = ("options", "option", "candidates", "choices", "answer_choices", "mc_options")
_NUMBERED = re.compile(r"(option|choice|candidate|answer_choice|opt|a|)[ _]?([0-9]|[A-H])", re.I)


def document_options(document: Mapping[str, Any]) -> list[str]:
    """The options that a task's document lists, in order; empty if it lists none.

    They are a list or a mapping in one field (`options`, `candidates`, `choices`, …), or fields in
    a series (`option0`, `option1`, …; `a0`, …; `A`, `B`, …) of which "N/A" and empty ones are left
    out.
    """
    for name, value in document.items():
        if name.lower() in _LISTS:
            values = list(value.values()) if isinstance(value, Mapping) else value
            if not isinstance(values, str) and isinstance(values, Iterable):
                texts = [str(one) for one in values if isinstance(one, (str, int, float))]
                if len(texts) >= 2:
                    return texts
    series: dict[str, list[tuple[str, str]]] = {}
    for name, value in document.items():
        match = _NUMBERED.fullmatch(name)
        if match and isinstance(value, str) and value.strip() and value != "N/A":
            series.setdefault(match[1].lower(), []).append((match[2].upper(), value))
    best = max(series.values(), key=len, default=[])
    ordered = sorted(best)
    marks = "".join(mark for mark, _ in ordered)
    consecutive = len(marks) >= 2 and any(marks in row for row in ("0123456789", "ABCDEFGH"))
    return [text for _, text in ordered] if consecutive else []


def _split(prompt: str, found: _Found | None, question: str | None) -> tuple[Part, ...]:
    if found is None:
        return (Part("stem", prompt),) if prompt else ()
    options = [(start, end) for start, _, end in found.spans]
    stem_start, stem_end = _stem_span(prompt, options[0][0], question)
    label = _STEM_LABEL.match(prompt, stem_start, stem_end)
    opening = label.end() if label and label.end() < stem_end else stem_start
    parts = [
        Part("template", prompt[:stem_start]),
        Part("label", prompt[stem_start:opening]),
        Part("stem", prompt[opening:stem_end]),
        Part("label", prompt[stem_end : options[0][0]]),
    ]
    for index, (start, end) in enumerate(options):
        parts.append(Part("option", prompt[start:end], index))
        if index + 1 < len(options):
            parts.append(Part("label", prompt[end : options[index + 1][0]]))
    parts.append(Part("template", prompt[options[-1][1] :]))
    return tuple(part for part in parts if part.text)


def _find_options(prompt: str, listed: Sequence[str]) -> _Found | None:
    lines, inline = _all_series(prompt)
    if listed:
        for one in (*reversed(lines), *reversed(inline)):
            if (fitted := _fitted(prompt, one, listed)) is not None:
                return fitted
        if _contains_in_order(prompt, listed):
            raise MapflowError(
                f"the prompt has the {len(listed)} options of the task's document"
                f" ({quoted(listed[0])}, …) in a form that is not recognised; known are lines like"
                " 'A. x', '(A) x', 'A) x', 'A: x', 'a. x' and '1. x'"
            )
    found = _chosen(prompt, lines) or _chosen(prompt, inline)
    if found and listed:
        raise MapflowError(
            f"the prompt shows the options {_shown(found.texts(prompt))}, the task's document lists"
            f" {_shown(listed)}"
        )
    if found and found.stray:
        raise MapflowError(
            f"the prompt has the options {', '.join(found.marks)} and a line {found.stray!r} in"
            " the same form, so options are missing or in another order"
        )
    if found is None and _ASKS.search(prompt):
        raise MapflowError(
            "the prompt asks for an option, and its options are in a form that is not recognised;"
            " known are lines like 'A. x', '(A) x', 'A) x', 'A: x', 'a. x' and '1. x'"
        )
    return found


def _chosen(prompt: str, found: Sequence[_Found]) -> _Found | None:
    """The last series of the first kind that there is. Raises MapflowError if one is longer."""
    for kind in ("capital", "small", "number"):
        own = [one for one in found if one.kind == kind]
        if kind == "number":
            own = [one for one in own if _OPTIONS_LABEL.search(prompt, 0, one.spans[0][0])]
        if own and max(len(one.spans) for one in own) > len(own[-1].spans):
            raise MapflowError(
                f"the prompt has several series of options, the last of {len(own[-1].spans)} after"
                " a longer one; which are the question's is not known"
            )
        if own:
            return own[-1]
    return None


def _shown(texts: Sequence[str]) -> str:
    return ", ".join(quoted(one) for one in texts[:3]) + (", …" if len(texts) > 3 else "")


def _all_series(prompt: str) -> tuple[list[_Found], list[_Found]]:
    """Every series of two or more options: those of lines, and those within a line, in order."""
    lines: list[_Found] = []
    inline: list[_Found] = []
    for kind, (pattern, order) in _SERIES.items():
        for opening in _OPENINGS:
            text = _LEAD + opening.format(mark=pattern) + r"(?:\*\*)?[ \t]*(?=\S)"
            lines += _series(prompt, kind, order, [*re.finditer(text, prompt, re.MULTILINE)])
        text = _INLINE.format(mark=pattern) + r"[ \t]*(?=\S)"
        inline += _series(prompt, kind, order, [*re.finditer(text, prompt)])

    def position(one: _Found) -> int:
        return one.spans[0][0]

    return sorted(lines, key=position), sorted(inline, key=position)


def _series(
    prompt: str, kind: str, order: Sequence[str], marks: Sequence[re.Match[str]]
) -> list[_Found]:
    runs: list[list[re.Match[str]]] = []
    strays: dict[int, str] = {}
    for mark in marks:
        if mark[1] == order[0]:
            runs.append([mark])
        elif runs and [mark[1]] == list(order[len(runs[-1]) :][:1]):
            runs[-1].append(mark)
        elif runs and mark[1] in order[len(runs[-1]) + 1 :][:2]:
            strays.setdefault(len(runs) - 1, mark[1])
    return [
        replace(_found(prompt, kind, run), stray=strays.get(number))
        for number, run in enumerate(runs)
        if len(run) > 1
    ]


def _found(prompt: str, kind: str, run: Sequence[re.Match[str]]) -> _Found:
    """Start, text and end of each option, without trailing whitespace."""
    spans = []
    for match, following in zip(run, [*run[1:], None], strict=True):
        end = following.start() if following else _line_end(prompt, match.end())
        start = match.start() + len(match[0]) - len(match[0].lstrip())
        spans.append((start, match.end(), start + len(prompt[start:end].rstrip())))
    return _Found(kind, tuple(match[1] for match in run), tuple(spans))


def _fitted(prompt: str, found: _Found, listed: Sequence[str]) -> _Found | None:
    """The series if it has the listed texts; the last one may go on over several lines."""
    if len(found.spans) != len(listed):
        return None
    *rest, (start, text, end) = found.spans
    last = listed[-1].strip()
    for begin in (text, start):
        if prompt.startswith(last, begin):
            end = max(end, begin + len(last))
    spans = (*rest, (start, text, end))
    same = all(
        _plain(option) in (_plain(prompt[text:end]), _plain(prompt[start:end]))
        for option, (start, text, end) in zip(listed, spans, strict=True)
    )
    return _Found(found.kind, found.marks, spans) if same else None


def _contains_in_order(prompt: str, listed: Sequence[str]) -> bool:
    """Whether the prompt contains all texts, one after the other; "yes" and "no" are words of
    instructions too."""
    plain, at = _plain(prompt), 0
    if {_plain(one) for one in listed} in ({"yes", "no"}, {"true", "false"}):
        return False
    for option in map(_plain, listed):
        at = plain.find(option, at)
        if at < 0:
            return False
        at += len(option)
    return True


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).strip(_EDGES)


def _line_end(prompt: str, start: int) -> int:
    end = prompt.find("\n", start)
    return len(prompt) if end < 0 else end


def _stem_span(prompt: str, end: int, question: str | None) -> Span:
    """The stem before the options, without their label and without leading instructions."""
    if label := _OPTIONS_LABEL.search(prompt, 0, end):
        end = label.start()
    end = len(prompt[:end].rstrip())
    for text in (question or "", (question or "").partition("\n")[0]):
        text = text.strip()
        start = prompt.rfind(text, 0, end) if text else -1
        if start >= 0:
            return start, end
    start, at = 0, 0
    for line in prompt[:end].splitlines(keepends=True):
        at += len(line)
        if at < end and _INSTRUCTION.match(line.rstrip("\r\n")):
            start = at
    return start + len(prompt[start:end]) - len(prompt[start:end].lstrip()), end

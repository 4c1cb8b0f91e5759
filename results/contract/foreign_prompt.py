"""Splits the prompts of lmms-eval's other tasks into stem, options and template.

The rules use the text alone:
1. Options are the longest series of lines that begin with A, B, C, … in one style ("A. x", "(A)
   x", "A) x", "A: x"); of equally long series, the last. Lines between two options belong to the
   first of them. Without such lines, options in brackets within a line count ("(A) x (B) y"). An
   option is its letter and text.
2. Before the options, a line "Options:" or "Choices:" is a label, and so is "Question:" at the
   start of the stem. Instructions (lines that name options, letters, choices, the best answer or
   subtitles) and everything before the last of them are template, if a line remains for the stem.
3. Everything after the options is template.
4. Without options the whole prompt is the stem.

The texts of the parts, joined, are the prompt.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mapflow.results.contract.answers import parse_answer
from mapflow.results.contract.question import LETTERS, Clip, Part, Prompt, Question

_STYLES = tuple(
    re.compile(rf"^[ \t]*{mark}[ \t]*(?=\S)", re.MULTILINE)
    for mark in (r"\(([A-Z])\)", r"([A-Z])\.(?=\s)", r"([A-Z])\)", r"([A-Z]):")
)
_INLINE = re.compile(r"(?<!\S)\(([A-Z])\)[ \t]*(?=\S)")
_OPTIONS_LABEL = re.compile(
    r"(?:^|\n)[ \t]*(?:options?|choices?|candidates?)[ \t]*:?[ \t]*\s*$", re.IGNORECASE
)
_STEM_LABEL = re.compile(r"\s*question[ \t]*:[ \t]*", re.IGNORECASE)
_INSTRUCTION = re.compile(
    r"\b(?:options?|letters?|choices?|multiple[- ]choice|best answer|subtitles?)\b", re.IGNORECASE
)

Span = tuple[int, int]


def split_prompt(prompt: str) -> tuple[Part, ...]:
    """The parts of the prompt in reading order."""
    options = _option_spans(prompt)
    if not options:
        return (Part("stem", prompt),) if prompt else ()
    stem_start, stem_end = _stem_span(prompt, options[0][0])
    label = _STEM_LABEL.match(prompt, stem_start, stem_end)
    opening = label.end() if label else stem_start
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


def foreign_question(
    prompt: str,
    *,
    question_id: str,
    video_id: str,
    task: str,
    clip: Clip,
    target: int | str,
    max_new_tokens: int,
) -> Question:
    """A question of another task: its own prompt is the whole user turn.

    `target` is the right option's index, letter or text; without options, the text of the answer.
    """
    turn = split_prompt(prompt)
    options = tuple(_text_of_option(part.text) for part in turn if part.kind == "option")
    chosen = parse_answer(target, options) if isinstance(target, str) else target
    bare = Prompt("", "", "", "", "", "", "")
    return Question(
        question_id=question_id,
        video_id=video_id,
        task=task,
        clip=clip,
        stem="".join(part.text for part in turn if part.kind == "stem"),
        options=options,
        target=chosen if chosen is not None and 0 <= chosen < len(options) else str(target),
        protocol="task",
        prompts={"completion": bare, "chat": bare},
        max_new_tokens=max_new_tokens,
        turn=turn,
    )


def _option_spans(prompt: str) -> list[Span]:
    """Start and end of each option, without trailing whitespace."""
    runs = [run for style in _STYLES for run in _runs(list(style.finditer(prompt)))]
    runs = runs or _runs(list(_INLINE.finditer(prompt)))
    if not runs:
        return []
    best = max(runs, key=lambda run: (len(run), run[0].start()))
    spans: list[Span] = []
    for match, following in zip(best, [*best[1:], None], strict=True):
        end = following.start() if following else _line_end(prompt, match.end())
        start = match.start() + len(match[0]) - len(match[0].lstrip())
        spans.append((start, start + len(prompt[start:end].rstrip())))
    return spans


def _runs(marks: Sequence[re.Match[str]]) -> list[list[re.Match[str]]]:
    """Consecutive marks that count A, B, C, …; at least two."""
    runs: list[list[re.Match[str]]] = []
    for mark in marks:
        if mark[1] == "A":
            runs.append([mark])
        elif runs and mark[1] == LETTERS[len(runs[-1]) :][:1]:
            runs[-1].append(mark)
    return [run for run in runs if len(run) > 1]


def _line_end(prompt: str, start: int) -> int:
    end = prompt.find("\n", start)
    return len(prompt) if end < 0 else end


def _stem_span(prompt: str, end: int) -> Span:
    """The stem before the options, without their label and without leading instructions."""
    if label := _OPTIONS_LABEL.search(prompt, 0, end):
        end = label.start()
    end = len(prompt[:end].rstrip())
    start, at = 0, 0
    for line in prompt[:end].splitlines(keepends=True):
        at += len(line)
        if at < end and _INSTRUCTION.search(line):
            start = at
    return start + len(prompt[start:end]) - len(prompt[start:end].lstrip()), end


def _text_of_option(option: str) -> str:
    mark = next(filter(None, (style.match(option) for style in (*_STYLES, _INLINE))))
    return option[mark.end() :]

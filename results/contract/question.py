"""A question about a clip, its options and how each protocol words it.

This is the contract between benchmarks, which know the questions, and model families, which know
conversations and tokens. A benchmark provides the *parts* of a prompt with their kinds, so no other
code has to search for the stem or an option in rendered text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.visible_text import quoted

PartKind = Literal["label", "stem", "option", "template"]
PromptStyle = Literal["completion", "chat"]
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
WRITTEN_LENGTH = 1024
"""Tokens that a model of lmms-eval may write; one that answers with a letter ends before. Models of
mapflow take the protocol's length instead."""
MOST_ID_BYTES = 1024
"""The longest id of a question, video or task, in bytes of UTF-8."""


@dataclass(frozen=True)
class Clip:
    """A stretch of a video file; without bounds, the whole file.

    start, end: seconds.
    archive, entry: the zip file that the video is unpacked from when it is first read, and its name
        there; None for a video that is a file already.
    """

    path: str
    start: float | None = None
    end: float | None = None
    archive: str | None = None
    entry: str | None = None


@dataclass(frozen=True)
class Part:
    """A part of the user's turn. Labels, stem and options form the *question* segment."""

    kind: PartKind
    text: str
    option: int | None = None


@dataclass(frozen=True)
class Prompt:
    """The wording of one protocol for one style of model.

    `system` opens the conversation, `preamble` comes between the video and the question, and
    `answer_prefix` begins the assistant's turn; all three may be empty. `option` is a format string
    with `{letter}` and `{text}`. `plain_roles`: turns begin with USER: and ASSISTANT: also for
    completion models with role tokens of their own.
    """

    system: str
    stem_label: str
    options_label: str
    option: str
    option_separator: str
    instruction: str
    answer_prefix: str
    preamble: str = ""
    plain_roles: bool = False


@dataclass(frozen=True)
class Question:
    """One question of a benchmark.

    `options` is empty for open-ended questions. `target` is the right answer: an index into
    `options` (of several with the right text the first; each of them is right), or for an
    open-ended question the text with which the answer should begin; an empty text means that
    nothing here knows the right answer. `n_frames` is the protocol's number of frames (None: the
    model's own). With `max_new_tokens` 1 the first token is the answer; `first_token` says so also
    of an answer that goes on, and with `first_line` a written answer's first line is. `until` are
    texts that end an answer. `turn` is the complete user turn of a task that words its own prompt,
    and `marks` how it marks its options (default: capital letters). `category` groups questions
    for reporting besides the task (TOMATO's kind of demonstration); it may be empty. `duration` is
    the video's stated length in seconds, where frames are chosen by it (LongVideoBench). With
    `first_capital` a written answer is the first option letter in it.
    """

    question_id: str
    video_id: str
    task: str
    clip: Clip
    stem: str
    options: tuple[str, ...]
    target: int | str
    protocol: str
    prompts: Mapping[PromptStyle, Prompt]
    n_frames: int | None = None
    max_new_tokens: int = 1
    first_line: bool = False
    turn: tuple[Part, ...] | None = None
    category: str = ""
    first_token: bool = False
    until: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    duration: float | None = None
    first_capital: bool = False

    def __post_init__(self) -> None:
        """Raises MapflowError for an id that is too long."""
        check_ids("question", self.question_id, self.video_id, self.task)

    @property
    def letters(self) -> tuple[str, ...]:
        """The options' marks, in order: ("A", "B", …)."""
        return self.marks or tuple(LETTERS[: len(self.options)])

    @property
    def identity(self) -> dict[str, str]:
        """The fields that every kind of record copies from its question."""
        return {
            "question_id": self.question_id,
            "video_id": self.video_id,
            "task": self.task,
            "protocol": self.protocol,
        }

    @property
    def n_right(self) -> int:
        """The number of options with the right answer's text; 0 for open-ended questions."""
        if not self.options or isinstance(self.target, str):
            return 0
        return self.options.count(self.options[self.target])

    @property
    def target_text(self) -> str:
        """The right option's letter, or the text of an open-ended answer."""
        return self.target if isinstance(self.target, str) else self.letters[self.target]

    def prompt(self, style: PromptStyle) -> Prompt:
        """The wording for models of `style`. Raises MapflowError if the protocol has none."""
        if style not in self.prompts:
            raise MapflowError(
                f"protocol {self.protocol!r} of task {self.task!r} has no prompt for {style!r}"
                " models;"
                f" it has {', '.join(self.prompts)}"
            )
        return self.prompts[style]

    def user_turn(self, style: PromptStyle) -> tuple[Part, ...]:
        """The user's turn as parts in reading order; joined, their texts are the rendered turn."""
        if self.turn is not None:
            return self.turn
        prompt = self.prompt(style)
        parts = [
            Part("template", prompt.preamble),
            Part("label", prompt.stem_label),
            Part("stem", self.stem),
        ]
        if self.options:
            parts.append(Part("label", prompt.options_label))
        for index, (letter, text) in enumerate(zip(self.letters, self.options, strict=True)):
            if index:
                parts.append(Part("label", prompt.option_separator))
            parts.append(Part("option", prompt.option.format(letter=letter, text=text), index))
        parts.append(Part("template", prompt.instruction))
        return tuple(part for part in parts if part.text)


class QuestionVideo(str):
    """The path of a question's video, which carries the question.

    Tasks give it to models that take `question`; others get a path that is a plain `str`.
    """

    question: Question

    def __new__(cls, path: str, question: Question) -> QuestionVideo:
        video = super().__new__(cls, path)
        video.question = question
        return video

    def __getnewargs__(self) -> tuple[str, Question]:  # type: ignore[override]
        return str(self), self.question


def check_ids(where: str, question_id: object, video_id: object, task: object) -> None:
    """Raises MapflowError, naming `where`, for an id longer than `MOST_ID_BYTES`.

    Other types than text are not checked here.
    """
    for name, value in (("id", question_id), ("video id", video_id), ("task", task)):
        check_id(where, name, value)


def check_id(where: str, name: str, value: object) -> None:
    """`check_ids` of one id; `name` says what it identifies."""
    if isinstance(value, str) and 4 * len(value) > MOST_ID_BYTES:
        n = len(value.encode("utf-8", "surrogatepass"))
        if n > MOST_ID_BYTES:
            raise MapflowError(
                f"{where}: {name} {quoted(value)} has {n:,} bytes, the most are"
                f" {MOST_ID_BYTES:,}; shorten it in the benchmark's files"
            )


def coded(ids: Iterable[str]) -> tuple[list[str], list[int]]:
    """The distinct ids in order, and the position of each id among them.

    Instead of NumPy's text arrays, which give every entry the width of the longest.
    """
    listed = list(ids)
    names = sorted(set(listed))
    position = {name: code for code, name in enumerate(names)}
    return names, [position[one] for one in listed]

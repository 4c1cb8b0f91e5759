"""One benchmark: its files, counts, chance levels and prompts; rows of its files to questions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import yaml

from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import Clip, Prompt, PromptStyle, Question
from mapflow.tasks.data_folder import DataFolder, Layout
from mapflow.tasks.rows import Entry, Row, read_rows


@dataclass(frozen=True)
class Protocol:
    """The wording of a benchmark's questions for each style of model, and the kind of answer.

    n_frames: frames shown per clip; None takes the model's own number.
    max_new_tokens: tokens that the model may write; with 1, the first token is the answer.
    first_line: whether the first line of a written answer counts alone.
    first_capital: whether the first option letter of a written answer counts, wherever it is.
    prompts: `{begin}` in an answer prefix is replaced by the entry's `answer_begin`.
    """

    name: str
    n_frames: int | None
    max_new_tokens: int
    first_line: bool
    first_capital: bool
    prompts: Mapping[PromptStyle, Prompt]

    def prompts_for(self, answer_begin: str) -> Mapping[PromptStyle, Prompt]:
        """The prompts for a question whose answer is begun with this text."""
        if not any("{begin}" in prompt.answer_prefix for prompt in self.prompts.values()):
            return self.prompts
        return {
            style: replace(
                prompt, answer_prefix=prompt.answer_prefix.replace("{begin}", answer_begin)
            )
            for style, prompt in self.prompts.items()
        }


@dataclass(frozen=True, eq=False)
class Benchmark:
    """One benchmark: its files, its questions and its published figures.

    name: in task names (`mapflow_<name>_<subtask>`) and question ids; title: in tables.
    layout: how the publisher lays out the files.
    counts: questions per subtask, as published; None where only the total is.
    chance_micro, chance_macro: expected accuracy of a uniform guess in percent over the complete
        set, by question and by subtask; None where none is published.
    read_row: turns (row, subtask, question id) into an Entry.
    select: which questions (number, row) of a subtask a row of its file is (subtask, number, row);
        by default each row is one.
    suffixes: what follows a video's name in the file's name; the first that is there counts.
    total: all questions, as published; by default the sum of `counts`.
    folder: the benchmark's package folder, which holds `prompts.yaml`.
    bundled: the folder of its data files where they come with mapflow, else None.
    categories: groups of questions across subtasks that get an accuracy each.
    micro: whether the accuracy over all questions is reported beside the mean over subtasks.
    """

    name: str
    title: str
    layout: Layout
    counts: Mapping[str, int | None]
    chance_micro: float | None
    chance_macro: float | None
    read_row: Callable[[Row, str, str], Entry]
    folder: Path
    bundled: Path | None = None
    categories: tuple[str, ...] = ()
    micro: bool = True
    select: Callable[[str, str, Row], Iterable[tuple[str, Row]]] | None = None
    suffixes: tuple[str, ...] = ("",)
    total: int | None = None

    def __post_init__(self) -> None:
        if (self.total is None) == (None in self.counts.values()):
            raise ValueError(
                f"{self.name}: give the total where counts are unknown, and only there"
            )

    @property
    def size(self) -> int:
        """The number of all questions."""
        return self.total or sum(n for n in self.counts.values() if n is not None)

    @property
    def task(self) -> str:
        """The name that selects all subtasks."""
        return f"mapflow_{self.name}"

    @property
    def pooled_metrics(self) -> tuple[str, ...]:
        """Accuracies over questions of all subtasks together: all questions, and each category."""
        return (*(("micro",) if self.micro else ()), *self.categories)

    @property
    def has_own_files(self) -> bool:
        """Whether users bring files for it: not bundled, and not another benchmark's files."""
        return self.bundled is None and self.layout.name == self.name

    @cached_property
    def protocols(self) -> Mapping[str, Protocol]:
        """The protocols of `prompts.yaml`, by name."""
        return _read_protocols(self.folder / "prompts.yaml")

    def protocol(self, name: str) -> Protocol:
        """Raises MapflowError for a protocol that the benchmark does not have."""
        if name not in self.protocols:
            raise MapflowError(
                f"benchmark {self.name!r} has no protocol {name!r};"
                f" it has {', '.join(self.protocols)}"
            )
        return self.protocols[name]

    def questions(
        self, folder: DataFolder, subtask: str, protocol: str = "paper"
    ) -> list[Question]:
        """The subtask's questions in the file's order; a missing video is not an error here.

        Raises MapflowError, naming question and field, where the question file is missing or wrong.
        """
        chosen = self.protocol(protocol)
        return [
            self._question(folder, subtask, chosen, row, _question_id(self.name, subtask, number))
            for number, row in self._rows(folder, subtask)
        ]

    def _rows(self, folder: DataFolder, subtask: str) -> Iterable[tuple[str, Row]]:
        rows = read_rows(folder.questions(subtask))
        if self.select is None:
            return rows
        return [one for number, row in rows for one in self.select(subtask, number, row)]

    def _question(
        self, folder: DataFolder, subtask: str, protocol: Protocol, row: Row, question_id: str
    ) -> Question:
        entry = self.read_row(row, subtask, question_id)
        try:
            files = [folder.video(subtask, entry.video + suffix) for suffix in self.suffixes]
        except MapflowError as error:
            raise MapflowError(f"{question_id}: field {entry.video_field!r}: {error}") from None
        file = next((one for one in files if one.exists), files[0])
        return Question(
            question_id=question_id,
            video_id=entry.video_id,
            task=f"{self.task}_{subtask}",
            clip=Clip(
                str(file.path),
                entry.start,
                entry.end,
                archive=str(file.archive) if file.archive else None,
                entry=file.entry,
            ),
            stem=entry.stem,
            options=entry.options,
            target=entry.target,
            protocol=protocol.name,
            prompts=protocol.prompts_for(entry.answer_begin),
            n_frames=protocol.n_frames,
            max_new_tokens=protocol.max_new_tokens,
            first_line=protocol.first_line,
            first_capital=protocol.first_capital,
            category=entry.category,
            duration=entry.duration,
        )


def chance_level(questions: Iterable[Question]) -> float:
    """Expected accuracy of a uniform guess as it is published: the mean of 1/options, 0 for
    open-ended questions. (Tables count an option that is right twice, `Record.chance`.)"""
    shares = [1 / len(question.options) if question.options else 0.0 for question in questions]
    return sum(shares) / len(shares) if shares else float("nan")


def _question_id(benchmark: str, subtask: str, number: str) -> str:
    """Benchmark, subtask and the question's number in the publisher's file."""
    return f"{benchmark}/{subtask}/{number.zfill(4) if number.isdecimal() else number}"


@cache
def _read_protocols(path: Path) -> Mapping[str, Protocol]:
    entries: dict[str, dict[str, Any]] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {
        name: Protocol(
            name=name,
            n_frames=entry.get("n_frames"),
            max_new_tokens=entry.get("max_new_tokens", 1),
            first_line=entry.get("first_line", False),
            first_capital=entry.get("first_capital", False),
            prompts={style: Prompt(**wording) for style, wording in entry["prompts"].items()},
        )
        for name, entry in entries.items()
    }

"""`mapflow data check`: checks that a benchmark's questions and videos are complete and readable.

Compares the number of questions, chance levels and checksums with the publisher's, and counts
videos that are missing or cannot be decoded (the caller passes the decoder in). Only reads: nothing
is fetched, unpacked or changed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tabulate import tabulate

from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.files import sha256
from mapflow.results.contract.question import Question
from mapflow.results.contract.visible_text import counted
from mapflow.tasks.benchmark import Benchmark, chance_level
from mapflow.tasks.data_folder import DataFolder, is_file

TryVideo = Callable[[Path], str | None]
"""Returns the error of decoding a video file, None if it can be decoded."""
TOLERANCE = 0.005
"""Percentage points: chance levels are published with two digits."""


@dataclass(frozen=True)
class SubtaskCheck:
    """One subtask.

    expected: questions as published, None where only the benchmark's total is.
    questions: None where the question file is absent.
    chance: expected accuracy of a uniform guess, 0 to 1.
    found, packed, missing: videos in the folder, in a zip file and in neither, each counted once.
    undecodable: name → reason, of the videos found; None where none was decoded.
    problem: what is wrong with the question file.
    """

    subtask: str
    expected: int | None
    questions: int | None = None
    chance: float | None = None
    found: int = 0
    packed: int = 0
    missing: tuple[str, ...] = ()
    undecodable: Mapping[str, str] | None = None
    problem: str | None = None

    @property
    def complete(self) -> bool:
        """Every question and video is there, as far as is known, and no video failed to decode."""
        there = bool(self.questions) and self.expected in (None, self.questions)
        return there and not (self.problem or self.missing or self.undecodable)


@dataclass(frozen=True)
class DataCheck:
    """One benchmark's folder. `checksums` lists files that are missing or differ."""

    benchmark: Benchmark
    root: Path
    subtasks: tuple[SubtaskCheck, ...]
    checksums: Sequence[str] = field(default_factory=tuple)
    checked_files: int = 0

    @property
    def questions(self) -> int:
        return sum(check.questions or 0 for check in self.subtasks)

    @property
    def chance_micro(self) -> float | None:
        """Percent, over the questions that are there; None without any."""
        known = [
            (c.chance, c.questions) for c in self.subtasks if c.chance is not None and c.questions
        ]
        total = sum(n for _, n in known)
        return 100 * sum(chance * n for chance, n in known) / total if total else None

    @property
    def chance_macro(self) -> float | None:
        """Percent, over the subtasks that are there; None without any."""
        known = [check.chance for check in self.subtasks if check.chance is not None]
        return 100 * sum(known) / len(known) if known else None

    @property
    def chance_as_published(self) -> bool | None:
        """None until every question file is there."""
        if any(check.questions is None for check in self.subtasks):
            return None
        pairs = (
            (self.chance_macro, self.benchmark.chance_macro),
            (self.chance_micro, self.benchmark.chance_micro),
        )
        return all(
            found is not None and abs(found - published) <= TOLERANCE
            for found, published in pairs
            if published is not None
        )

    @property
    def complete(self) -> bool:
        return (
            all(check.complete for check in self.subtasks)
            and self.questions == self.benchmark.size
            and self.chance_as_published is True
            and not self.checksums
        )


def check_data(
    benchmark: Benchmark,
    folder: DataFolder,
    try_video: TryVideo | None = None,
    checksums: Path | None = None,
) -> DataCheck:
    """Checks every subtask. `checksums` is a file of lines "<sha256>  <path below the folder>".

    Raises MapflowError for a checksum file that cannot be read; problems of the data are in the
    result.
    """
    subtasks = tuple(
        _check_subtask(benchmark, folder, subtask, try_video) for subtask in benchmark.counts
    )
    wrong, count = _verify(checksums, folder.root) if checksums else ([], 0)
    return DataCheck(benchmark, folder.root, subtasks, tuple(wrong), count)


def _check_subtask(
    benchmark: Benchmark, folder: DataFolder, subtask: str, try_video: TryVideo | None
) -> SubtaskCheck:
    expected = benchmark.counts[subtask]
    try:
        if not folder.questions(subtask).is_file():
            return SubtaskCheck(subtask, expected)
        questions = benchmark.questions(folder, subtask)
    except MapflowError as error:
        return SubtaskCheck(subtask, expected, problem=str(error))
    clips = {question.video_id: question.clip for question in questions}
    packed = [name for name, clip in clips.items() if clip.archive]
    found = {
        name: Path(clip.path)
        for name, clip in clips.items()
        if not clip.archive and is_file(Path(clip.path))
    }
    tried = {name: try_video(path) for name, path in found.items()} if try_video else None
    return SubtaskCheck(
        subtask,
        expected,
        questions=len(questions),
        chance=chance_level(questions),
        found=len(found),
        packed=len(packed),
        missing=tuple(name for name in clips if name not in found and name not in packed),
        undecodable=None
        if tried is None
        else {name: reason for name, reason in tried.items() if reason},
        problem=_count_problem(questions, expected),
    )


def _count_problem(questions: Sequence[Question], expected: int | None) -> str | None:
    n = len(questions)
    if expected is None or n == expected:
        return None
    return f"{counted(n, 'question')} where {expected:,} are published"


def _verify(checksums: Path, root: Path) -> tuple[list[str], int]:
    try:
        lines = [
            line.split(maxsplit=1)
            for line in checksums.read_text(encoding="utf-8").splitlines()
            if line.strip()
        ]
    except (OSError, ValueError) as error:
        raise MapflowError(f"{checksums}: not a readable file of checksums ({error})") from None
    wrong = []
    for number, line in enumerate(lines, 1):
        if len(line) != 2 or len(line[0]) != 64:
            raise MapflowError(f"{checksums}: line {number} is not '<sha256>  <path>'")
        digest, name = line[0].lower(), line[1].lstrip("*").strip()
        path = root / name
        if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
            raise MapflowError(
                f"{checksums}: line {number} names {name!r}, which is not in the data folder"
            )
        if not is_file(path):
            wrong.append(f"{name}: missing")
        elif sha256([path]) != digest:
            wrong.append(f"{name}: differs from its checksum")
    return wrong, len(lines)


def render_check(check: DataCheck, examples: int = 3) -> str:
    """A table with one row per subtask; below it, every problem with up to `examples` names."""
    tried = any(subtask.undecodable is not None for subtask in check.subtasks)
    header = [
        "subtask",
        "questions",
        "published",
        "videos",
        "found",
        "in zip",
        "missing",
        *(["broken"] if tried else []),
    ]
    rows = [_row(subtask, tried) for subtask in check.subtasks]
    table = tabulate(
        rows,
        headers=header,
        colalign=["left", *["right"] * (len(header) - 1)],
        disable_numparse=True,
    )
    layout = check.benchmark.layout
    lines = [f"{layout.published_as} in {check.root}", "", table, "", *_totals(check)]
    for subtask in check.subtasks:
        lines += _problems(subtask, examples, layout.questions[subtask.subtask])
    lines += [f"checksum: {wrong}" for wrong in check.checksums]
    if check.checked_files:
        lines.append(
            f"checksums: {check.checked_files - len(check.checksums)} of {check.checked_files}"
            " files right"
        )
    if any(subtask.packed for subtask in check.subtasks):
        lines.append(
            "videos in zip files are unpacked when they are first read;"
            " `mapflow data prepare` unpacks them all"
        )
    if any(subtask.missing for subtask in check.subtasks):
        lines.append(layout.by_hand.format(root=check.root))
    lines.append("complete" if check.complete else "not complete")
    return "\n".join(lines)


def _row(check: SubtaskCheck, tried: bool) -> list[str]:
    if check.questions is None:
        return [check.subtask, "–", _known(check.expected), *["–"] * (4 + tried)]
    videos = check.found + check.packed + len(check.missing)
    counts = [check.questions, check.expected, videos, check.found, check.packed]
    return [
        check.subtask,
        *map(_known, [*counts, len(check.missing)]),
        *([str(len(check.undecodable or ()))] if tried else []),
    ]


def _known(number: int | None) -> str:
    return "–" if number is None else str(number)


def _totals(check: DataCheck) -> list[str]:
    lines = [f"questions: {check.questions:,} of {check.benchmark.size:,}"]
    published = check.benchmark
    for name, value, target in (
        ("macro", check.chance_macro, published.chance_macro),
        ("micro", check.chance_micro, published.chance_micro),
    ):
        if value is not None and target is not None:
            state = {None: "of the complete set", True: "", False: "DIFFERS"}[
                check.chance_as_published
            ]
            state = f" {state}" if state else ""
            lines.append(f"chance, {name}: {value:.2f} % (published {target:.2f} %{state})")
    return lines


def _problems(check: SubtaskCheck, examples: int, questions: str) -> list[str]:
    lines = []
    if check.problem:
        lines.append(f"{check.subtask}: {check.problem}")
    elif check.questions is None:
        lines.append(f"{check.subtask}: no {questions}")
    if check.missing:
        lines.append(f"{check.subtask}: missing {_some(check.missing, examples)}")
    lines += [
        f"{check.subtask}: {name}: {why}"
        for name, why in list((check.undecodable or {}).items())[:examples]
    ]
    return lines


def _some(names: Sequence[str], examples: int) -> str:
    more = len(names) - examples
    return ", ".join(names[:examples]) + (f" and {more} more" if more > 0 else "")

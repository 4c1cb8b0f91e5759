"""Small data folders in the publishers' layouts, made for tests."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def tvbench_row(video: str = "clip.mp4", **changes: Any) -> dict[str, Any]:
    """A well-formed question of TVBench's; `changes` replace fields, None removes one."""
    row = {
        "video": video,
        "question": "Which way?",
        "candidates": ["Left.", "Right."],
        "answer": "Right.",
    }
    return {key: value for key, value in {**row, **changes}.items() if value is not None}


def tomato_row(key: str = "0001-00", **changes: Any) -> dict[str, Any]:
    """A well-formed question of TOMATO's, likewise."""
    row = {
        "question": "How many?",
        "options": ["1", "2", "3"],
        "answer": 1,
        "key": key,
        "motion_type": "count",
        "demonstration_type": "human",
    }
    return {name: value for name, value in {**row, **changes}.items() if value is not None}


def write_tvbench(root: Path, questions: Mapping[str, Sequence[Mapping[str, Any]]]) -> Path:
    """`root`/json/<subtask>.json; returns `root`."""
    for subtask, rows in questions.items():
        _write(root / "json" / f"{subtask}.json", rows)
    return root


def write_tomato(root: Path, questions: Mapping[str, Sequence[Mapping[str, Any]]]) -> Path:
    """`root`/data/<file>.json, numbered as the publisher numbers them; returns `root`."""
    for file, rows in questions.items():
        _write(
            root / "data" / f"{file}.json", {str(number): row for number, row in enumerate(rows)}
        )
    return root


def write_zip(path: Path, entries: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def put(path: Path, content: bytes = b"video") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")

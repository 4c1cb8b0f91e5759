"""Fuzzes question files: each is refused or gives complete questions about files in the folder."""

from __future__ import annotations

import json
import os.path
from dataclasses import asdict
from random import Random
from typing import Any

from mapflow.results.contract.question import LETTERS
from mapflow.tasks.rows import (
    answer_index_of,
    candidates_entry,
    file_name_of,
    options_of,
    parse_rows,
)

from .mutation import mutated

ROWS = [
    json.dumps(
        [
            {
                "video": "a/b.mp4",
                "question": "Which way?",
                "candidates": ["Left.", "Right."],
                "answer": "Right.",
            }
        ]
    ),
    json.dumps(
        [
            {
                "video": "b.mp4",
                "question": "?",
                "candidates": ["2", 3, 4.5],
                "answer": 3,
                "start": 0,
                "end": 2.5,
            }
        ]
    ),
    json.dumps(
        {"0": {"key": "0001-00", "question": "How many?", "options": ["1", "2"], "answer": 1}}
    ),
    json.dumps(
        {"7": {"video": "é日.avi", "question": "😀", "candidates": ["x", "x"], "answer": "x"}}
    ),
]
ROW_TOKENS = [
    *'{}[],:"\\0123456789.-eE /~',
    *(
        "null",
        "true",
        "NaN",
        "Infinity",
        "-1",
        "1e999",
        "1e308",
        "9" * 400,
        "../",
        "..",
        "\\u0000",
        "\\ud800",
        "C:",
    ),
    *(
        "\\\\",
        "\\u202e",
        "\\u001b",
        '"start": 1, ',
        '"end": 0.5, ',
        '"answer": 0, ',
        '"video": "/x", ',
        "[[",
        "{}",
    ),
]
ROOT = "/data/video"


def rows(random: Random) -> Any:
    """A file is refused, or its questions have text, options, an answer and a safe file name."""
    text = mutated(random, ROWS, ROW_TOKENS)
    found = []
    for number, row in parse_rows(text, "here.json"):
        if "key" in row:
            options = options_of(row, "options", number)
            assert 0 <= answer_index_of(row, "answer", options, number) < len(options), text
            name = file_name_of(row, "key", number)
        else:
            entry = candidates_entry(row, "action_count", number)
            options = list(entry.options)
            assert isinstance(entry.target, int), text
            assert options[entry.target] == str(row["answer"]), text
            start, end = entry.start, entry.end
            assert (start is None and end is None) or (
                start is not None and end is not None and 0 <= start < end
            ), text
            assert entry.stem.strip(), text
            name = entry.video_id.partition("/")[2]
            json.dumps(asdict(entry), ensure_ascii=False).encode()
        assert 2 <= len(options) <= len(LETTERS) and all(
            isinstance(one, str) and one.strip() for one in options
        ), text
        inside = os.path.normpath(f"{ROOT}/{name}")
        assert inside.startswith(ROOT + "/") and "\0" not in inside, text
        found.append(options)
    assert found
    return found

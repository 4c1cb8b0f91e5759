"""Fuzzes lines of records: each is refused or becomes a valid record that can be written."""

from __future__ import annotations

from random import Random
from typing import Any

from mapflow.results.records.record import Record
from mapflow.results.records.sweep import SweepRecord

from .mutation import mutated

RECORDS = [
    Record(
        "tvbench/one/0000", "one/clip.mp4", "mapflow_tvbench_one", "full", None, "paper", 4, "A"
    ).to_line(),
    Record(
        question_id="q\n\u2028\x1b",
        video_id="v",
        task="t",
        intervention="random:seed=3",
        seed=3,
        protocol="paper",
        n_options=2,
        target="B",
        prediction="B\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"),
        correct=True,
        valid=True,
        p_answer=0.25,
        p_target=1e-300,
        option_probs={"A": 0.5, "B": 0.25},
        option_prediction="A",
        margin=0.1,
        edges_kept=10,
        edges_total=20,
        n_tokens=5,
        frame_indices=(0, 3, 9),
        repeated_frames=0,
    ).to_line(),
    Record("a", "b", "c", "full", None, "paper", 0, "left", error="no such video").to_line(),
]
SWEEPS = [
    SweepRecord(
        "q",
        "v",
        "t",
        "video->last",
        "center",
        9,
        "paper",
        2,
        "A",
        "B",
        False,
        0.5,
        0.25,
        0.1,
        (0.5, 0.25),
        (0.1, 0.2),
    ).to_line(),
]
RECORD_TOKENS = [
    *'{}[],:"\\0123456789.-eE ',
    *(
        "null",
        "true",
        "false",
        "NaN",
        "Infinity",
        "1e999",
        "-0",
        "9" * 30,
        "[" * 50,
        "\\u0000",
        "\\ud800",
        "\\n",
    ),
    *(
        '"seed":1,',
        '"correct":',
        '"error":"x",',
        '"extra":1,',
        '"frame_indices":[1],',
        '"option_probs":{"A":1},',
    ),
]


def records(random: Random) -> Any:
    """A line is refused, or its record has the right types and survives writing and reading."""
    kind, corpus = (Record, RECORDS) if random.random() < 0.8 else (SweepRecord, SWEEPS)
    line = mutated(random, corpus, RECORD_TOKENS)
    record = kind.from_line(line, "here")
    written = record.to_line()
    written.encode()
    assert "\n" not in written
    assert kind.from_line(written, "there") == record, line
    assert all(isinstance(part, str) for part in record.key), line
    for name, value in vars(record).items():
        if name in ("question_id", "video_id", "task", "protocol", "target"):
            assert type(value) is str, line
        elif name in ("n_options", "edges_kept", "edges_total", "n_tokens", "seed", "window"):
            assert type(value) is int or (value is None and name != "n_options"), line
        elif name in ("prediction", "answer", "error", "option_prediction", "left_out"):
            assert value is None or type(value) is str, line
        elif name in ("correct", "valid"):
            assert value in (None, True, False) and type(value) is not int, line
    return record

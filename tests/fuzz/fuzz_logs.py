"""Fuzzes logs of other tools: each is refused in one line or becomes valid records."""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from pathlib import Path
from random import Random
from typing import Any

from mapflow.results.contract.errors import MapflowError
from mapflow.results.records.record import Record
from mapflow.results.runs.run import open_records, read_runs
from tests.results.log_files import (
    DATE,
    harness_sample,
    inspect_header,
    inspect_sample,
    write_harness,
)

from .fuzz_records import RECORD_TOKENS
from .mutation import mutated

FOLDER = tempfile.TemporaryDirectory(prefix="fuzz-logs-")
LMMS = {
    "doc_id": 0,
    "target": "A",
    "filtered_resps": ["A"],
    "doc_hash": "x",
    "a_score": {"score": 1.0, "videoID": "v"},
}
OURS = {"question_id": "b/one/1", "video_id": "v", "prediction": "A", "valid": True}
TOKENS = [
    *RECORD_TOKENS,
    *('"doc_id":', '"filter":"x",', '"metrics":["acc"],', '"acc":0.5,', '"video_id":7,', '"C"'),
    *('"epoch":2,', '"scores":null,', '"error":{"message":"x"},', '"id":"1",', "1" * 5000),
]


def _lines(*samples: dict[str, Any]) -> str:
    return "".join(json.dumps(sample) + "\n" for sample in samples)


TEXTS = {
    f"samples_own_{DATE}.jsonl": [
        _lines(harness_sample(0, 1), harness_sample(1, 0)),
        _lines(harness_sample(0, 1, filter="strict", filtered_resps=["7"])),
    ],
    "20260101_samples_own.jsonl": [
        _lines(LMMS),
        _lines({**LMMS, "answer": OURS, "accuracy": 0.0}, {**LMMS, "doc_id": 1, "acc": 1}),
    ],
    "own.json": [
        json.dumps({**inspect_header(), "samples": [inspect_sample(0, "C")]}),
        json.dumps({**inspect_header(), "samples": [inspect_sample(0, 1), inspect_sample(1, "N")]}),
    ],
}
RESULTS = (write_harness(Path(FOLDER.name), {}) / f"results_{DATE}.json").read_text()


def _archive() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.json", json.dumps(inspect_header()))
        archive.writestr("summaries.json", json.dumps([inspect_sample(0, "C")]))
    return data.getvalue()


ARCHIVE = _archive()


def logs(random: Random) -> Any:
    """A log is refused, or its records can be written and read, and make runs without NaN."""
    folder = Path(FOLDER.name)
    if random.random() < 0.2:
        place, data = folder / "own.eval", bytearray(ARCHIVE)
        for _ in range(int(random.random() * 4)):
            data[int(random.random() * len(data))] = int(random.random() * 256)
        place.write_bytes(data)
    else:
        name = random.choice(list(TEXTS))
        place = folder / name
        place.write_bytes(mutated(random, TEXTS[name], TOKENS).encode("utf-8", "surrogatepass"))
        results = mutated(random, [RESULTS], TOKENS) if random.random() < 0.2 else RESULTS
        (folder / f"results_{DATE}.json").write_bytes(results.encode("utf-8", "surrogatepass"))
    manifest, records = open_records(place)
    json.dumps(manifest, allow_nan=True).encode()
    for record in records:
        assert record.correct is None or type(record.correct) is bool
        record.question_id.encode()
        try:
            assert Record.from_line(record.to_line(), "there") == record
        except MapflowError as error:
            raise AssertionError(f"an invalid record: {error}") from None
    return [run.correct.mean() for run in read_runs(place)]

"""A run as logs of Inspect (`.json`), one per benchmark and intervention, for its viewer.

Written without Inspect: its log is one JSON object (version 2).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.files import write_file
from mapflow.results.contract.question import Question
from mapflow.results.exchange.content import Exported
from mapflow.results.exchange.names import file_part, make_folder
from mapflow.results.records.record import Record
from mapflow.results.runs.run import Run
from mapflow.results.statistics import accuracy

SCORER = "mapflow"


def write_inspect(exported: Exported, path: Path) -> list[Path]:
    """One log into the file `path` (.json), or all logs into the folder `path`.

    Raises MapflowError for several logs and a single file.
    """
    runs = [run for group in exported.groups for run in group]
    logs = {_file_name(run, exported): _log(run, exported) for run in runs}
    if path.suffix == ".eval":
        raise MapflowError(f"{str(path)!r}: Inspect logs are written as .json, or into a folder")
    if path.suffix == ".json":
        if len(runs) > 1:
            raise MapflowError(
                f"{str(exported.place)!r} makes {len(runs)} logs, one per benchmark and"
                " intervention: name a folder with -o, or one of them with"
                f" {exported.place}:{runs[0].intervention}"
            )
        files = {path: next(iter(logs.values()))}
    else:
        make_folder(path)
        files = {path / name: log for name, log in logs.items()}
    for file, log in files.items():
        write_file(file, json.dumps(log, ensure_ascii=False, allow_nan=False, indent=1))
    return list(files)


def _identity(run: Run, exported: Exported) -> str:
    """The same for every export of a run, so that a repeated export replaces its files."""
    parts = (run.model, run.benchmark, run.intervention, exported.written.isoformat())
    return hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()[:22]


def _file_name(run: Run, exported: Exported) -> str:
    task = file_part(f"{run.benchmark}-{run.intervention}").replace("_", "-")
    return f"{exported.written:%Y-%m-%dT%H-%M-%S}-00-00_{task}_{_identity(run, exported)}.json"


def _log(run: Run, exported: Exported) -> dict[str, Any]:
    records, created = exported.records_of(run), exported.written.isoformat()
    samples = [
        _sample(record, run.model, exported.questions.get(record.question_id)) for record in records
    ]
    metrics = {}
    if run.n:
        found = accuracy(run.correct[~run.failed], run.cluster)
        values = {"accuracy": found.estimate, "ci_low": found.low, "ci_high": found.high}
        metrics = {name: {"name": name, "value": one, "params": {}} for name, one in values.items()}
    identity, (tool, version) = _identity(run, exported), exported.tool
    meaning = (exported.manifest.get("interventions") or {}).get(run.intervention)
    about = {"intervention": run.intervention, "meaning": meaning, "protocol": run.protocol}
    return {
        "version": 2,
        "status": "success",
        "eval": {
            "eval_id": identity,
            "run_id": identity,
            "created": created,
            "task": run.benchmark,
            "task_id": identity,
            "task_version": 0,
            "task_attribs": {},
            "task_args": {"intervention": run.intervention},
            "dataset": {
                "name": run.title,
                "samples": run.total or len(samples),
                "sample_ids": [sample["id"] for sample in samples],
                "shuffled": False,
            },
            "model": run.model,
            "model_args": {},
            "config": {"epochs": 1},
            "packages": {tool: version, "mapflow": version_of("mapflow")},
            "metadata": about,
        },
        "plan": {"name": "plan", "steps": [{"solver": tool, "params": about}], "config": {}},
        "results": {
            "total_samples": len(samples),
            "completed_samples": run.n,
            "scores": [
                {
                    "name": SCORER,
                    "scorer": SCORER,
                    "scored_samples": run.n,
                    "unscored_samples": run.errors,
                    "params": {},
                    "metrics": metrics,
                }
            ],
        },
        "stats": {"started_at": created, "completed_at": created, "model_usage": {}},
        "samples": samples,
    }


def _sample(record: Record, model: str, question: Question | None) -> dict[str, Any]:
    options = list(question.options) if question and question.options else None
    asked = question.stem if question else f"{record.question_id} (text not on this machine)"
    said = record.prediction or ""
    message = {"id": f"{record.question_id} answer", "role": "assistant", "content": said}
    sample: dict[str, Any] = {
        "id": record.question_id,
        "epoch": 1,
        "input": asked,
        "choices": options,
        "target": record.target,
        "messages": [
            {"id": record.question_id, "role": "user", "content": _turn(asked, options)},
            *([] if record.error else [message]),
        ],
        "output": {
            "model": model,
            "choices": [] if record.error else [{"message": message, "stop_reason": "stop"}],
            "completion": said,
        },
        "metadata": _metadata(record),
        "store": {},
        "events": [],
        "attachments": {},
        "model_usage": {},
    }
    if record.error is not None:
        text = {"message": record.error, "traceback": record.error, "traceback_ansi": record.error}
        return {**sample, "scores": None, "error": text}
    score = {"value": "C" if record.correct else "I", "answer": said, "explanation": said}
    return {**sample, "scores": {SCORER: score}}


def _turn(stem: str, options: list[str] | None) -> str:
    """The question and its options; the prompt's own wording is not recorded."""
    listed = [f"{chr(65 + i)}) {text}" for i, text in enumerate(options or ())]
    return "\n".join([stem, *listed])


def _metadata(record: Record) -> Mapping[str, Any]:
    """What the record holds beyond the answer; `video_id` is the cluster."""
    names = ("video_id", "task", "valid", "p_answer", "p_target", "option_probs", "margin")
    more = ("edges_kept", "edges_total", "frame_indices")
    values = {name: getattr(record, name) for name in (*names, *more)}
    return {name: value for name, value in values.items() if value is not None}

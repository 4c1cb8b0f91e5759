"""Reads lmms-eval's sample logs (`<date>_samples_<task>.jsonl`) as records.

mapflow's tasks log question id, video id and validity in a metric called `answer`. For other tasks
the question id is made of task and document number, correctness is a single score of 0 or 1, and
the cluster is what lmms-eval itself clusters by: the field of the metric that the task's
`cluster_key` names. Sample logs hold no options, probabilities, frames or edges.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.files import read_json
from mapflow.results.contract.question import check_ids
from mapflow.results.contract.visible_text import quoted
from mapflow.results.logs.log_files import log_lines, newest_of_each_task
from mapflow.results.records.record import Record

FILE_NAME = re.compile(r"(?P<date>.+?)_samples_(?P<task>.+)\.jsonl")
SCORES = ("accuracy", "acc", "exact_match", "score", "correct")


def sample_files(place: Path) -> list[Path]:
    """The newest log of every task in or under `place`, or `place` itself if it is a log.

    Raises MapflowError if logs lie in several folders, because they may belong to several models.
    """
    if place.is_file():
        return [place] if place.suffix == ".jsonl" else []
    named = [
        (found["task"], path)
        for path in sorted(place.rglob("*_samples_*.jsonl"), key=lambda path: path.name)
        if (found := FILE_NAME.fullmatch(path.name)) and not path.name.startswith("samples_")
    ]  # the harness's logs of tasks that are called so
    return newest_of_each_task(place, named)


def read_samples(files: Sequence[Path]) -> tuple[dict[str, Any], Iterator[Record]]:
    """The manifest and one record per sample."""
    manifest, keys = _manifest(files[0])
    return manifest, _records(files, _intervention(manifest), keys)


def _manifest(file: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """What lmms-eval recorded about the run, under the names that run folders use.

    Also returns task → `cluster_key`.
    """
    found = FILE_NAME.fullmatch(file.name)
    results = file.with_name(f"{found['date']}_results.json") if found else file
    if not found or not results.is_file():
        return {"identity": {}, "logged_by": "lmms-eval"}, {}
    said = read_json(results)
    config: Any = said.get("config")
    config = config if isinstance(config, dict) else {}
    arguments = config.get("model_args")
    pretrained = re.search(r"(?:^|,)pretrained=([^,]+)", str(arguments))
    identity = {
        "model": said.get("model_name") or config.get("model"),
        "checkpoint": pretrained and pretrained[1],
        "versions": {"lmms-eval": said.get("lmms_eval_version")},
    }
    tasks: Any = said.get("configs")
    keys = {
        task: one["cluster_key"]
        for task, one in (tasks.items() if isinstance(tasks, dict) else ())
        if isinstance(one, dict) and isinstance(one.get("cluster_key"), str)
    }
    manifest = {
        "identity": {name: value for name, value in identity.items() if value},
        "model_args": arguments,
        "interventions": {},
        "git": said.get("git_hash"),
        "logged_by": "lmms-eval",
    }
    return manifest, keys


def _intervention(manifest: Mapping[str, Any]) -> str:
    """The first intervention, whose answers lmms-eval logs; "full" if none was given."""
    arguments = str(manifest.get("model_args") or "")
    named = [
        word.partition("=")[2] for word in arguments.split(",") if word.startswith("intervention=")
    ]
    return named[0].partition(";")[0] if named else "full"


class _Unscored(MapflowError):
    """A sample that is neither right nor wrong."""


def _records(files: Sequence[Path], intervention: str, keys: Mapping[str, str]) -> Iterator[Record]:
    """One record per sample.

    Raises MapflowError, naming file and line, for a line that is not a sample and for a sample
    without a single score of 0 or 1. Beside other logs, a log with such a sample yields a record
    without `correct` instead.
    """
    for path in files:
        found = FILE_NAME.fullmatch(path.name)
        task = found["task"] if found else path.stem
        seen: set[str] = set()
        for where, line in log_lines(path):
            try:
                record = _record(line, where, task, intervention, keys.get(task))
            except _Unscored:
                if len(files) == 1:
                    raise
                yield Record(f"{task}/", "", task, intervention, None, "", 0, "")
                break
            if record.question_id in seen:
                raise MapflowError(
                    f"{where}: question {record.question_id!r} is there twice; keep one answer per"
                    " question"
                )
            seen.add(record.question_id)
            yield record


def _record(line: str, where: str, task: str, intervention: str, cluster_key: str | None) -> Record:
    try:
        sample: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise MapflowError(f"{where}: not a sample ({error})") from None
    if not isinstance(sample, dict) or "doc_id" not in sample:
        raise MapflowError(f"{where}: not a sample of lmms-eval (it has no doc_id)")
    answer = sample.get("answer")
    ours = isinstance(answer, dict) and "question_id" in answer and "video_id" in answer
    identity: Mapping[str, Any] = answer if isinstance(answer, dict) and ours else {}
    asked = not (ours and identity.get("valid") is None)
    correct = _score(sample, where) if asked else None
    prediction = identity.get("prediction") if ours else _response(sample)
    if prediction is not None and not isinstance(prediction, str):
        raise MapflowError(f"{where}: the prediction {quoted(prediction)} is not text")
    number = sample["doc_id"]
    if type(number) is not int and not isinstance(number, str):
        raise MapflowError(f"{where}: doc_id {number!r} is neither a number nor text")
    question = f"{task}/{number:06d}" if isinstance(number, int) else f"{task}/{number}"
    cluster = identity.get("video_id", _cluster(sample, cluster_key))
    ids = (str(identity.get("question_id", question)), str(cluster))
    check_ids(where, *ids, task)
    return Record(
        question_id=ids[0],
        video_id=ids[1],
        task=task,
        intervention=intervention,
        seed=None,
        protocol="",
        n_options=0,
        target=str(sample.get("target", "")),
        prediction=prediction if asked else None,
        correct=correct,
        valid=bool(identity["valid"]) if ours and asked else None,
        error=None if asked else "could not be asked (see the run's own records)",
    )


def _cluster(sample: Mapping[str, Any], key: str | None) -> str | int:
    """The value of the task's cluster key in one of the metrics; empty without one."""
    for values in sample.values() if key else ():
        found = values.get(key) if isinstance(values, dict) else None
        if isinstance(found, str) or type(found) is int:
            return found
    return ""


def _score(sample: Mapping[str, Any], where: str) -> bool:
    """The single score of 0 or 1, found by its name, also within a metric that is a mapping."""
    plain = {name: value for name, value in sample.items() if name not in ("doc_id", "answer")}
    inside = {
        f"{metric}.{name}": value
        for metric, values in plain.items()
        if isinstance(values, dict) and metric not in ("input", "arguments")
        for name, value in values.items()
    }
    for candidates in (plain, inside):
        for score in SCORES:
            found = {
                name: value
                for name, value in candidates.items()
                if name == score or name.endswith((f"_{score}", f".{score}"))
                if isinstance(value, (bool, int, float)) and value in (0, 1)
            }
            if len(set(found.values())) == 1:
                return bool(next(iter(found.values())))
    raise _Unscored(
        f"{where}: no single score of 0 or 1 among {', '.join(map(str, plain)) or 'no fields'}"
        f" (looked for {', '.join(SCORES)}); only such tasks can be compared"
    )


def _response(sample: Mapping[str, Any]) -> str | None:
    response = sample.get("filtered_resps")
    while isinstance(response, list) and len(response) == 1:
        response = response[0]
    return response if isinstance(response, str) else None

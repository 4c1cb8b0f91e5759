"""Reads lm-evaluation-harness's sample logs (`--log_samples`) as records.

`samples_<task>_<date>.jsonl` has one line per document and filter; `results_<date>.json` beside it
names model, versions, groups of tasks and the number of documents. Each filter is scored apart, so
it makes a benchmark of its own: "gsm8k (lm-eval, strict-match)".
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.files import read_json
from mapflow.results.contract.question import check_ids
from mapflow.results.contract.visible_text import quoted
from mapflow.results.logs.log_files import (
    cluster_of,
    log_lines,
    newest_of_each_task,
    right_or_wrong,
    typed,
)
from mapflow.results.records.record import Record

FILE_NAME = re.compile(
    r"samples_(?P<task>.+)_(?P<date>\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(?:\.\d+)?)\.jsonl"
)
PREFERRED = ("acc", "exact_match")
"""Scores that are taken before others; `acc_norm` is another measure of the same answers."""


class _Sample(msgspec.Struct):
    """The fields of a line that are read; its scores have names of their own."""

    doc_id: int | str
    target: Any = None
    filter: str = "none"
    filtered_resps: Any = None
    doc: Any = None
    doc_hash: str = ""
    metrics: list[str] | None = None
    scores: dict[str, bool | None] = {}


class _Results(msgspec.Struct, rename={"n_shot": "n-shot", "n_samples": "n-samples"}):
    """The fields of a results file that are read."""

    config: dict[str, Any] = {}
    group_subtasks: dict[str, list[str]] = {}
    n_shot: dict[str, Any] = {}
    n_samples: dict[str, dict[str, Any]] = {}
    versions: dict[str, Any] = {}
    higher_is_better: dict[str, dict[str, bool | None]] = {}
    lm_eval_version: str | None = None
    git_hash: str | None = None


def sample_files(place: Path) -> list[Path]:
    """The newest log of every task in or under `place`, or `place` itself if it is a log.

    Raises MapflowError if logs lie in several folders, because they may belong to several models.
    """
    if place.is_file():
        return [place] if place.suffix == ".jsonl" and _is_log(place) else []
    named = [
        (found["task"], path)
        for path in place.rglob("samples_*.jsonl")
        if (found := FILE_NAME.fullmatch(path.name))
    ]
    by_date = sorted(named, key=lambda one: (_date(one[1]), one[1].name))
    return sorted(newest_of_each_task(place, by_date))


def _is_log(file: Path) -> bool:
    """Whether a file is one by its name or, if it was renamed, by its first line."""
    if FILE_NAME.fullmatch(file.name):
        return True
    first = next(log_lines(file), ("", ""))[1]
    return bool(re.search(r'"filter": ?"', first) and re.search(r'"metrics": ?\[', first))


def _date(file: Path) -> str:
    found = FILE_NAME.fullmatch(file.name)
    return found["date"] if found else ""


def read_samples(files: Sequence[Path]) -> tuple[dict[str, Any], Iterator[Record]]:
    """The manifest and one record per document and filter.

    Raises MapflowError as `_records`, and for a results file of another form.
    """
    newest = max(files, key=_date)
    found = sorted(newest.parent.glob(f"*_{_date(newest)}.json")) if _date(newest) else []
    results = _Results()
    if found:
        results = typed(read_json(found[0]), _Results, str(found[0]), "lm-eval's results")
    groups = {_task(file): _group(_task(file), results.group_subtasks) for file in files}
    numbers: dict[str, int] = {}
    for task, group in groups.items():
        of = results.n_samples.get(task, {}).get("original")
        if isinstance(of, int):
            numbers[group] = numbers.get(group, 0) + of
    records = [one for file in files for one in _records(file, results, groups, len(files) == 1)]
    sizes = {
        one.benchmark: numbers[groups[one.task]] for one in records if groups[one.task] in numbers
    }
    return {**_manifest(results), "questions": sizes}, iter(records)


def _task(file: Path) -> str:
    found = FILE_NAME.fullmatch(file.name)
    return found["task"] if found else file.stem


def _group(task: str, groups: Mapping[str, Sequence[str]]) -> str:
    """The outermost group that the task is in; the task itself where it is in none or in several"""
    inside, seen = task, {task}
    while len(above := [group for group, tasks in groups.items() if inside in tasks]) == 1:
        inside = above[0]
        if inside in seen:
            return task
        seen.add(inside)
    return task if above else inside


def _manifest(results: _Results) -> dict[str, Any]:
    """What the results file says about the run, under the names that run folders use."""
    arguments = results.config.get("model_args")
    if isinstance(arguments, Mapping):
        checkpoint = arguments.get("pretrained") or arguments.get("model")
    else:
        named = re.search(r"(?:^|,)(?:pretrained|model)=([^,]+)", str(arguments or ""))
        checkpoint = named and named[1]
    versions = {"lm-eval": results.lm_eval_version} if results.lm_eval_version else {}
    versions |= {f"task {task}": str(version) for task, version in results.versions.items()}
    identity = {
        "model": results.config.get("model"),
        "checkpoint": checkpoint,
        "versions": versions,
    }
    return {
        "identity": {
            name: value if name == "versions" else str(value)
            for name, value in identity.items()
            if value
        },
        "interventions": {},
        "git": results.git_hash,
        "logged_by": "lm-evaluation-harness",
    }


def _records(
    file: Path, results: _Results, groups: Mapping[str, str], alone: bool
) -> Iterator[Record]:
    """The records of one log.

    Raises MapflowError, naming the line, for a line that is not a sample or a document that occurs
    twice, and naming the scores where none is 0 or 1 for all documents. Beside other logs, such a
    filter yields a record without `correct` instead.
    """
    task = _task(file)
    by_filter: dict[str, dict[str, _Sample]] = {}
    for where, line in log_lines(file):
        sample = _sample(line, where)
        own = by_filter.setdefault(sample.filter, {})
        key = f"{sample.doc_id!r} {sample.doc_hash}"
        if key in own:
            raise MapflowError(
                f"{where}: document {quoted(sample.doc_id)} is there twice; keep one answer per"
                " question"
            )
        own[key] = sample
    for name, samples in by_filter.items():
        tag = "lm-eval" if name == "none" else f"lm-eval, {name}"
        benchmark = f"{groups[task].replace('/', ':')} ({tag.replace('/', ':')})"
        metric = _metric(list(samples.values()), results.higher_is_better.get(task, {}))
        if metric is None:
            if alone and len(by_filter) == 1:
                said = ", ".join(next(iter(samples.values())).scores) or "none"
                raise MapflowError(
                    f"{file}: no score that is 0 or 1 for every document (scores: {said}); only"
                    " such tasks can be compared"
                )
            yield Record(f"{benchmark}/", "", task, "full", None, "", 0, "")
            continue
        shots = results.n_shot.get(task)
        protocol = f"{shots}-shot, {metric}" if isinstance(shots, int) else metric
        times = Counter(str(sample.doc_id) for sample in samples.values())
        for sample in samples.values():
            number, target = sample.doc_id, sample.target
            row = f"{number:06d}" if isinstance(number, int) else str(number)
            if times[str(number)] > 1:
                row += f"-{sample.doc_hash[:16]}"
            ids = (f"{benchmark}/{task}/{row}", cluster_of(sample.doc))
            check_ids(str(file), *ids, task)
            yield Record(
                question_id=ids[0],
                video_id=ids[1],
                task=task,
                intervention="full",
                seed=None,
                protocol=protocol,
                n_options=_n_options(sample.filtered_resps),
                target=target if isinstance(target, str) else json.dumps(target),
                prediction=_prediction(sample.filtered_resps),
                correct=sample.scores[metric],
            )


def _sample(line: str, where: str) -> _Sample:
    """One line, with every score as right, wrong or neither."""
    try:
        values: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise MapflowError(f"{where}: not a sample ({error})") from None
    sample = typed(values, _Sample, where, "a sample of lm-evaluation-harness")
    names = sample.metrics if sample.metrics is not None else list(values)
    sample.scores = {
        name: right_or_wrong(values.get(name)) for name in names if name not in _FIELDS
    }
    return sample


_FIELDS = {*_Sample.__struct_fields__, "arguments", "resps", "prompt_hash", "target_hash"}


def _metric(samples: Sequence[_Sample], higher: Mapping[str, bool | None]) -> str | None:
    """The first score that is 0 or 1 for all documents and means success; preferred ones first."""
    names = list(dict.fromkeys(name for sample in samples for name in sample.scores))
    names.sort(key=lambda name: PREFERRED.index(name) if name in PREFERRED else len(PREFERRED))
    for name in names:
        if higher.get(name) is not False and all(
            sample.scores.get(name) is not None for sample in samples
        ):
            return name
    return None


def _likelihoods(responses: Any) -> list[float]:
    """The log likelihood of every choice; empty if the model wrote its answer."""
    found = []
    for one in responses if isinstance(responses, list) else ():
        if not isinstance(one, list) or len(one) != 2 or not isinstance(one[0], (str, float, int)):
            return []
        try:
            found.append(float(one[0]))
        except (ValueError, OverflowError):
            return []
    return found


def _n_options(responses: Any) -> int:
    """The number of choices; 0 where it is unknown."""
    choices = len(_likelihoods(responses))
    return choices if choices > 1 else 0


def _prediction(responses: Any) -> str | None:
    """The written answer, or the number of the likeliest choice, counted from 0 as targets are."""
    choices = _likelihoods(responses)
    if len(choices) > 1:
        return str(max(range(len(choices)), key=choices.__getitem__))
    while isinstance(responses, list) and len(responses) == 1:
        responses = responses[0]
    return responses if isinstance(responses, str) else None

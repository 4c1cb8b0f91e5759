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
from typing import Any, NamedTuple

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


class _Answer(NamedTuple):
    """What is kept of a line: its document may be large."""

    number: str
    digest: str
    target: str
    video_id: str
    n_options: int
    prediction: str | None
    scores: dict[str, bool | None]


class _Part(NamedTuple):
    """The answers of one task under one filter, and the score that counts; None without one."""

    file: Path
    task: str
    filter: str
    answers: list[_Answer]
    metric: str | None
    protocol: str


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

    Beside other logs, one without a score of right or wrong yields a record without `correct`.

    Raises MapflowError, naming file and line, as `_parts`, and for a results file of another form.
    """
    newest = max(files, key=_date)
    found = sorted(newest.parent.glob(f"*_{_date(newest)}.json")) if _date(newest) else []
    results = _Results()
    if found:
        results = typed(read_json(found[0]), _Results, str(found[0]), "lm-eval's results")
    parts = [part for file in files for part in _parts(file, results)]
    if len(parts) == 1 and parts[0].metric is None:
        said = ", ".join(parts[0].answers[0].scores) or "none"
        raise MapflowError(
            f"{files[0]}: no score that is 0 or 1 for every document (scores: {said}); only such"
            " tasks can be compared"
        )
    numbers: dict[str, list[Any]] = {}
    records: list[Record] = []
    for part, benchmark in zip(parts, _benchmarks(parts, results.group_subtasks), strict=True):
        records += _records(part, benchmark)
        number = results.n_samples.get(part.task, {}).get("original")
        numbers.setdefault(benchmark, []).append(number)
    sizes = {
        benchmark: sum(own)
        for benchmark, own in numbers.items()
        if all(isinstance(one, int) and one > 0 for one in own)
    }
    return {**_manifest(results), "questions": sizes}, iter(records)


def _task(file: Path) -> str:
    found = FILE_NAME.fullmatch(file.name)
    return found["task"] if found else file.stem


def _benchmarks(parts: Sequence[_Part], groups: Mapping[str, Sequence[str]]) -> list[str]:
    """The benchmark of each part: the outermost group whose logged tasks are all scored alike.

    Tasks with other scores or another number of examples do not make one accuracy: then a smaller
    group, or the task alone, is the benchmark.
    """
    chains = [_groups_of(part.task, groups) for part in parts]
    kinds: dict[tuple[str, str], set[str | None]] = {}
    for part, chain in zip(parts, chains, strict=True):
        for group in chain:
            kinds.setdefault((group, part.filter), set()).add(part.metric and part.protocol)
    found = []
    for part, chain in zip(parts, chains, strict=True):
        group = next((one for one in chain if len(kinds[one, part.filter]) == 1), part.task)
        tag = "lm-eval" if part.filter == "none" else f"lm-eval, {part.filter}"
        found.append(f"{group} ({tag})".replace("/", ":"))
    return found


def _groups_of(task: str, groups: Mapping[str, Sequence[str]]) -> list[str]:
    """The groups around a task, the outermost first, then the task.

    Where a task or group is in several groups, none of those counts.
    """
    chain = [task]
    while True:
        above = [group for group, tasks in groups.items() if chain[0] in tasks]
        if len(above) != 1 or above[0] in chain:
            return chain
        chain.insert(0, above[0])


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


def _parts(file: Path, results: _Results) -> list[_Part]:
    """The answers of a log, one part per filter.

    Raises MapflowError, naming the line, for a line that is not a sample or a document that occurs
    twice.
    """
    task = _task(file)
    by_filter: dict[str, dict[tuple[str, str], _Answer]] = {}
    for where, line in log_lines(file):
        name, answer = _answer(line, where)
        own = by_filter.setdefault(name, {})
        key = answer.number, answer.digest
        if key in own:
            raise MapflowError(
                f"{where}: document {quoted(answer.number)} is there twice; keep one answer per"
                " question"
            )
        own[key] = answer
    shots, parts = results.n_shot.get(task), []
    for name, own in by_filter.items():
        answers = list(own.values())
        metric = _metric(answers, results.higher_is_better.get(task, {}))
        protocol = f"{shots}-shot, {metric}" if isinstance(shots, int) else f"{metric}"
        parts.append(_Part(file, task, name, answers, metric, protocol))
    return parts


def _records(part: _Part, benchmark: str) -> Iterator[Record]:
    if part.metric is None:
        yield Record(f"{benchmark}/", "", part.task, "full", None, "", 0, "")
        return
    times = Counter(answer.number for answer in part.answers)
    for answer in part.answers:
        row = answer.number + (f"-{answer.digest[:16]}" if times[answer.number] > 1 else "")
        question = f"{benchmark}/{part.task}/{row}"
        check_ids(str(part.file), question, answer.video_id, part.task)
        yield Record(
            question_id=question,
            video_id=answer.video_id,
            task=part.task,
            intervention="full",
            seed=None,
            protocol=part.protocol,
            n_options=answer.n_options,
            target=answer.target,
            prediction=answer.prediction,
            correct=answer.scores[part.metric],
        )


def _answer(line: str, where: str) -> tuple[str, _Answer]:
    """The filter and the answer of one line, with every score as right, wrong or neither."""
    try:
        values: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise MapflowError(f"{where}: not a sample ({error})") from None
    sample = typed(values, _Sample, where, "a sample of lm-evaluation-harness")
    names = sample.metrics if sample.metrics is not None else list(values)
    number, target = sample.doc_id, sample.target
    return sample.filter, _Answer(
        f"{number:06d}" if isinstance(number, int) else number,
        sample.doc_hash,
        target if isinstance(target, str) else json.dumps(target),
        cluster_of(sample.doc),
        _n_options(sample.filtered_resps),
        _prediction(sample.filtered_resps),
        {name: right_or_wrong(values.get(name)) for name in names if name not in _FIELDS},
    )


_FIELDS = {*_Sample.__struct_fields__, "arguments", "resps", "prompt_hash", "target_hash"}


def _metric(samples: Sequence[_Answer], higher: Mapping[str, bool | None]) -> str | None:
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

"""The YAML files through which lmms-eval finds our tasks, written from the registry.

lmms-eval registers one name per YAML file: a group file may hold its subtasks, but those cannot be
selected by name then (`TaskManager._get_task_and_group`, version 0.7.3). So every benchmark and
every subtask needs a file that says nothing but its name, and they are written when needed.
"""

from __future__ import annotations

import json
import shutil
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryFile
from uuid import uuid4

from mapflow.results.contract.archives import cache_folder
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import WRITTEN_LENGTH
from mapflow.tasks.benchmark import Benchmark
from mapflow.tasks.registry import BENCHMARKS

VERSION = 1.0
"""Of every task; lmms-eval writes it beside the results. Raise it when answers are graded anew."""

CALLED = ("doc_to_visual", "doc_to_messages", "doc_to_text", "doc_to_target", "process_results")
"""The functions of `lmms_functions.py` that lmms-eval calls under their own names."""


def write_task_files() -> Path:
    """The folder of task files, for lmms-eval's `--include_path`; written where it is not there.

    It lies in the cache folder, under a name that changes with its content. Raises MapflowError
    where it cannot be written.
    """
    files = _task_files()
    content = json.dumps(files, sort_keys=True)
    folder = cache_folder() / "lmms_tasks" / sha256(content.encode()).hexdigest()[:16]
    try:
        if not _holds(folder, files):
            _write(folder, files)
    except OSError as error:
        raise MapflowError(
            f"{folder} cannot be written ({error}): set MAPFLOW_CACHE to another folder"
        ) from None
    return folder


def check_table_cache() -> None:
    """Raises MapflowError if the folder of the library `datasets` cannot be written.

    lmms-eval would try to read a task five times and end in a traceback.
    """
    from datasets import config

    folder = Path(config.HF_DATASETS_CACHE)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise MapflowError(
            f"{folder}, where tables of questions are kept, cannot be written ({error.strerror}):"
            " set HF_HOME to another folder"
        ) from None


def _task_files() -> dict[str, str]:
    """File name → content."""
    files: dict[str, str] = {}
    for benchmark in BENCHMARKS.values():
        files[f"{benchmark.name}.json"] = json.dumps([{"benchmark": benchmark.name}])
        files[f"{benchmark.name}.yaml"] = _group_file(benchmark)
        for subtask in benchmark.counts:
            files[f"{benchmark.name}_{subtask}.yaml"] = _task_file(benchmark, subtask)
    return files


def _task_file(benchmark: Benchmark, subtask: str) -> str:
    data_files = dict.fromkeys(benchmark.counts, f"{benchmark.name}.json")
    metrics = {"accuracy": "mean"}
    metrics |= dict.fromkeys(benchmark.pooled_metrics, _function("share"))
    metrics |= {"answer": _function("valid_answer_rate")}
    return _lines(
        f"task: {benchmark.task}_{subtask}",
        "dataset_path: json",
        f"dataset_kwargs: {json.dumps({'data_files': data_files})}",
        f"test_split: {subtask}",
        f"process_docs: {_function('documents')}",
        "output_type: generate_until",
        *(f"{name}: {_function(name)}" for name in CALLED),
        f"generation_kwargs: {{max_new_tokens: {WRITTEN_LENGTH}, until: [], do_sample: false,"
        " temperature: 0}",
        "metric_list:",
        *(
            f"- {{metric: {name}, aggregation: {aggregation}, higher_is_better: true}}"
            for name, aggregation in metrics.items()
        ),
        f"metadata: {{version: {VERSION}}}",
    )


def _group_file(benchmark: Benchmark) -> str:
    return _lines(
        f"group: {benchmark.task}",
        "task:",
        *(f"- {benchmark.task}_{subtask}" for subtask in benchmark.counts),
        "aggregate_metric_list:",
        "- {metric: accuracy, aggregation: mean, weight_by_size: false}",
        *(
            f"- {{metric: {name}, aggregation: {_function('pooled')}}}"
            for name in benchmark.pooled_metrics
        ),
        f"metadata: {{version: {VERSION}}}",
    )


def _function(name: str) -> str:
    return f"!function mapflow.tasks.lmms_functions.{name}"


def _lines(*lines: str) -> str:
    return "\n".join(lines) + "\n"


def _holds(folder: Path, files: dict[str, str]) -> bool:
    """Whether the folder holds these files, unchanged, and no other."""
    return (
        folder.is_dir()
        and {file.name for file in folder.iterdir()} == set(files)
        and all((folder / name).read_text("utf-8") == text for name, text in files.items())
    )


def _write(folder: Path, files: dict[str, str]) -> None:
    """All files or none, also where several processes write at the same time."""
    partial = folder.with_name(f".{folder.name}.{uuid4().hex}")
    partial.mkdir(parents=True)
    try:
        for name, text in files.items():
            (partial / name).write_text(text, "utf-8")
        if folder.exists() and not _holds(folder, files):
            shutil.rmtree(folder)
        partial.rename(folder)
    except OSError:
        if not _holds(folder, files):  # another process was first where it does
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)

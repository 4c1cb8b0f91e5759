"""All benchmarks, and their questions by task name.

A task is a benchmark (`mapflow_tvbench`) or one of its subtasks (`mapflow_tvbench_action_count`).
"""

from __future__ import annotations

from pathlib import Path

from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import Question
from mapflow.tasks import (
    longvideobench,
    motion,
    tomato,
    tvbench,
    tvbench_open,
    vcgbench,
    videomme,
)
from mapflow.tasks.benchmark import Benchmark
from mapflow.tasks.data_folder import DataFolder, local_folder
from mapflow.tasks.data_prepare import fetch

BENCHMARKS: dict[str, Benchmark] = {
    one.name: one
    for one in (
        motion.BENCHMARK,
        tvbench.BENCHMARK,
        tvbench_open.BENCHMARK,
        tomato.BENCHMARK,
        longvideobench.BENCHMARK,
        videomme.BENCHMARK,
        vcgbench.BENCHMARK,
    )
}


def benchmark_titles() -> dict[str, str]:
    """Benchmark name → its title in tables."""
    return {one.name: one.title for one in BENCHMARKS.values()}


def benchmark_sizes() -> dict[str, int]:
    """Benchmark name → its number of questions, as published."""
    return {one.name: one.size for one in BENCHMARKS.values()}


def benchmark_repositories() -> dict[str, str]:
    """Benchmark name → its data set on the Hugging Face Hub, of those that are there."""
    return {one.name: one.layout.repository for one in BENCHMARKS.values() if one.layout.repository}


def task_sizes() -> dict[str, int]:
    """Name of a subtask's task → its number of questions, where that is published."""
    return {
        f"{one.task}_{subtask}": n
        for one in BENCHMARKS.values()
        for subtask, n in one.counts.items()
        if n is not None
    }


def task_names() -> list[str]:
    """Every name that selects questions: benchmarks' tasks and those of their subtasks."""
    return [
        name
        for one in BENCHMARKS.values()
        for name in (one.task, *(f"{one.task}_{subtask}" for subtask in one.counts))
    ]


def benchmarks_with_files() -> dict[str, Benchmark]:
    """The benchmarks whose files users bring, by name."""
    return {one.name: one for one in BENCHMARKS.values() if one.has_own_files}


def benchmark_with_files(name: str) -> Benchmark:
    """Raises MapflowError for a name that is not one of `benchmarks_with_files`."""
    known = benchmarks_with_files()
    if name not in known:
        raise MapflowError(f"no benchmark {name!r}; there are {', '.join(known)}")
    return known[name]


def benchmark_of(task: str) -> Benchmark:
    """The benchmark of a task. Raises MapflowError for an unknown one."""
    return _subtasks(task)[0][0]


def load_questions(
    tasks: str,
    protocol: str = "paper",
    data_dir: Path | None = None,
    limit: int | None = None,
) -> list[Question]:
    """The questions of one or more tasks.

    tasks: task names separated by commas.
    protocol: the wording of the questions, as in the benchmark's `prompts.yaml`.
    data_dir: folder with the benchmarks' files as published. Without it, bundled benchmarks read
        their own files and others the copy in the cache, which is fetched from the Hub if needed.
    limit: how many questions of each subtask at most.

    Raises MapflowError for an unknown task or protocol, a limit below 1, and for question files
    that are missing or wrong. A missing video is an error of its question once the clip is read.
    """
    if limit is not None and limit < 1:
        raise MapflowError(f"limit {limit} must be at least 1 question")
    names = [name for name in map(str.strip, tasks.split(",")) if name]
    if not names:
        raise MapflowError(f"no task named in {tasks!r}; name one, e.g. mapflow_motion")
    chosen = dict.fromkeys(subtask for name in names for subtask in _subtasks(name))
    for benchmark, _ in chosen:
        benchmark.protocol(protocol)
    found: list[Question] = []
    for benchmark, subtask in chosen:
        folder = _folder(benchmark, subtask, data_dir)
        found += benchmark.questions(folder, subtask, protocol)[:limit]
    return found


def _subtasks(task: str) -> list[tuple[Benchmark, str]]:
    """Every (benchmark, subtask) that a task name selects."""
    for benchmark in BENCHMARKS.values():
        if task == benchmark.task:
            return [(benchmark, subtask) for subtask in sorted(benchmark.counts)]
        for subtask in benchmark.counts:
            if task == f"{benchmark.task}_{subtask}":
                return [(benchmark, subtask)]
    names = ", ".join(sorted(one.task for one in BENCHMARKS.values()))
    raise MapflowError(f"unknown task {task!r}; benchmarks: {names}, and their subtasks")


def _folder(benchmark: Benchmark, subtask: str, data_dir: Path | None) -> DataFolder:
    if benchmark.bundled is not None:
        return DataFolder(benchmark.layout, benchmark.bundled, trusted=True)
    if data_dir is None:
        return fetch(benchmark.layout, subtask)
    return local_folder(benchmark.layout, data_dir.expanduser())

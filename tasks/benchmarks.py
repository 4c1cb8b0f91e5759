"""The benchmarks whose files a user brings: what their publishers count, and how their questions are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mapflow.results.contract.errors import MapflowError
from mapflow.tasks.data_folder import DataFolder, Layout
from mapflow.tasks.documents import Document
from mapflow.tasks.tomato import questions as tomato
from mapflow.tasks.tvbench import questions as tvbench


@dataclass(frozen=True)
class Benchmark:
    """`counts`: questions by subtask, as published. `chance_macro`, `chance_micro`: expected accuracy of a uniform
    guess in percent over the complete set, by subtask or by question; None where none is published."""

    layout: Layout
    counts: Mapping[str, int]
    chance_macro: float | None
    chance_micro: float
    read_documents: Callable[[DataFolder, str], list[Document]]


BENCHMARKS = {
    "tvbench": Benchmark(
        layout=tvbench.LAYOUT,
        counts={subtask: row["questions"] for subtask, row in tvbench.SUBTASKS.items()},
        chance_macro=33.33,
        chance_micro=35.07,
        read_documents=tvbench.read_documents,
    ),
    "tomato": Benchmark(
        layout=tomato.LAYOUT,
        counts={subtask: row["questions"] for subtask, row in tomato.SUBTASKS.items()},
        chance_macro=None,
        chance_micro=19.91,
        read_documents=tomato.read_documents,
    ),
}


def benchmark(name: str) -> Benchmark:
    """Raises MapflowError for a name that is none of ours."""
    if name not in BENCHMARKS:
        raise MapflowError(f"no benchmark {name!r}; there are {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]

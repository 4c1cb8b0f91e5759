"""The bundled benchmark: rendered clips whose questions depend on the order of the frames."""

from pathlib import Path

from mapflow.tasks.benchmark import Benchmark
from mapflow.tasks.data_folder import Layout
from mapflow.tasks.rows import candidates_entry

SUBTASKS = ("direction", "antonym", "sequence", "count", "scene")

BENCHMARK = Benchmark(
    name="motion",
    title="Motion",
    layout=Layout(
        name="motion",
        published_as="Motion",
        questions={subtask: f"json/{subtask}.json" for subtask in SUBTASKS},
        videos={subtask: f"video/{subtask}" for subtask in SUBTASKS},
    ),
    counts=dict.fromkeys(SUBTASKS, 64),
    chance_micro=31.67,
    chance_macro=31.67,
    read_row=candidates_entry,
    folder=Path(__file__).parent,
    bundled=Path(__file__).parent / "data",
    micro=False,
)

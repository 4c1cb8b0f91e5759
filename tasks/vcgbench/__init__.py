"""VCGBench, the benchmark of Video-ChatGPT: written answers to open questions (arXiv 2306.05424).

A chat model judges the answers; nothing here does, so they have no score.
"""

from collections.abc import Iterator
from pathlib import Path

from mapflow.tasks.benchmark import Benchmark
from mapflow.tasks.data_folder import Layout
from mapflow.tasks.rows import Entry, Row, file_name_of, text_of

COUNTS = {"consistency": 998, "generic": 1996, "temporal": 499}
"""As in the card of the data set lmms-lab/VideoChatGPT."""


def select(subtask: str, number: str, row: Row) -> Iterator[tuple[str, Row]]:
    """A row of the consistency questions is two questions, asked apart."""
    if subtask != "consistency":
        yield number, row
        return
    for part in ("1", "2"):
        yield f"{number.zfill(4)}-{part}", {**row, "Q": row.get(f"Q{part}")}


def read_row(row: Row, subtask: str, question_id: str) -> Entry:
    """Raises MapflowError naming question and field."""
    text_of(row, "A", question_id)  # the judge's reference
    name = file_name_of(row, "video_name", question_id)
    return Entry(
        video=name,
        video_id=name,
        video_field="video_name",
        stem=text_of(row, "Q", question_id),
        options=(),
        target="",
    )


BENCHMARK = Benchmark(
    name="vcgbench",
    title="VCGBench",
    layout=Layout(
        name="vcgbench",
        published_as="VCGBench",
        questions={one: f"Benchmarking_QA/{one}_qa.json" for one in COUNTS},
        videos=dict.fromkeys(COUNTS, "Test_Videos"),
        by_hand=(
            "VCGBench is linked from https://github.com/mbzuai-oryx/Video-ChatGPT (quantitative"
            " evaluation): put Benchmarking_QA/ and Test_Videos/ into {root}"
        ),
    ),
    counts=COUNTS,
    chance_micro=None,
    chance_macro=None,
    read_row=read_row,
    select=select,
    suffixes=(".mp4", ".mkv"),
    folder=Path(__file__).parent,
)

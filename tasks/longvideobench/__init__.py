"""LongVideoBench: 1,337 questions of its validation set in 17 categories (arXiv 2407.15754).

Asked as in the appendix of the paper (arXiv 2510.13251), which uses O2E, O3O and SOS.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from mapflow.tasks.benchmark import Benchmark
from mapflow.tasks.data_folder import Layout
from mapflow.tasks.rows import (
    Entry,
    Row,
    answer_index_of,
    file_name_of,
    options_of,
    seconds_of,
    text_of,
)

SUBTASKS = (
    *("e2o", "e3e", "o2e", "o3o", "s2a", "s2e", "s2o", "saa", "sos", "sss"),
    *("t2a", "t2e", "t2o", "t3e", "t3o", "taa", "tos"),
)


def select(subtask: str, number: str, row: Row) -> Iterator[tuple[str, Row]]:
    """Rows of the category. Raises MapflowError for a row without one."""
    if text_of(row, "question_category", f"longvideobench question {number}").lower() == subtask:
        yield number, row


def read_row(row: Row, subtask: str, question_id: str) -> Entry:
    """Raises MapflowError naming question and field. `duration` chooses the frames."""
    options = options_of(row, "candidates", question_id)
    name = file_name_of(row, "video_path", question_id)
    entry = Entry(
        video=name,
        video_id=name,
        video_field="video_path",
        stem=text_of(row, "question", question_id),
        options=tuple(options),
        target=answer_index_of(row, "correct_choice", options, question_id),
    )
    return replace(entry, duration=seconds_of(row, "duration", question_id))


BENCHMARK = Benchmark(
    name="longvideobench",
    title="LongVideoBench",
    layout=Layout(
        name="longvideobench",
        published_as="LongVideoBench",
        questions=dict.fromkeys(SUBTASKS, "lvb_val.json"),
        videos=dict.fromkeys(SUBTASKS, "videos"),
        by_hand=(
            "LongVideoBench is at https://huggingface.co/datasets/longvideobench/LongVideoBench"
            " after consent to its terms: put lvb_val.json into {root} and the unpacked videos into"
            " {root}/videos/"
        ),
    ),
    counts=dict.fromkeys(SUBTASKS),
    total=1337,
    chance_micro=None,
    chance_macro=None,
    read_row=read_row,
    select=select,
    folder=Path(__file__).parent,
)

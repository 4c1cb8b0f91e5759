"""Video-MME: 2,700 questions in twelve types (arXiv 2405.21075).

Asked as in the appendix of the paper (arXiv 2510.13251), which uses Action Recognition and Spatial
Perception.
"""

from collections.abc import Iterator
from pathlib import Path

from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import LETTERS
from mapflow.tasks.benchmark import Benchmark
from mapflow.tasks.data_folder import Layout
from mapflow.tasks.rows import Entry, Row, file_name_of, options_of, text_of

SUBTASKS = (
    "action_reasoning",
    "action_recognition",
    "attribute_perception",
    "counting_problem",
    "information_synopsis",
    "ocr_problems",
    "object_reasoning",
    "object_recognition",
    "spatial_perception",
    "spatial_reasoning",
    "temporal_perception",
    "temporal_reasoning",
)


def select(subtask: str, number: str, row: Row) -> Iterator[tuple[str, Row]]:
    """Rows of the type. Raises MapflowError for a row without one."""
    kind = text_of(row, "task_type", f"videomme question {number}")
    if "_".join(kind.lower().split()) == subtask:
        yield number, row


def read_row(row: Row, subtask: str, question_id: str) -> Entry:
    """A row whose options carry their letters ("A. He sits.") and whose answer is a letter.

    Raises MapflowError naming question and field.
    """
    options = options_of(row, "options", question_id)
    for letter, option in zip(LETTERS, options, strict=False):
        if not option.startswith(f"{letter}."):
            raise MapflowError(
                f"{question_id}: field 'options': {option!r} must begin with '{letter}.'"
            )
    answer = text_of(row, "answer", question_id)
    if answer not in LETTERS[: len(options)]:
        raise MapflowError(
            f"{question_id}: field 'answer': {answer!r} is not the letter of an option"
        )
    name = file_name_of(row, "videoID", question_id)
    return Entry(
        video=name,
        video_id=name,
        video_field="videoID",
        stem=text_of(row, "question", question_id),
        options=tuple(options),
        target=LETTERS.index(answer),
    )


BENCHMARK = Benchmark(
    name="videomme",
    title="Video-MME",
    layout=Layout(
        name="videomme",
        published_as="Video-MME",
        questions=dict.fromkeys(SUBTASKS, "videomme/test-00000-of-00001.parquet"),
        videos=dict.fromkeys(SUBTASKS, "data"),
        by_hand=(
            "Video-MME is at https://huggingface.co/datasets/lmms-lab/Video-MME: put videomme/ into"
            " {root} and unpack the videos_chunked_*.zip files there, which gives {root}/data/"
        ),
    ),
    counts=dict.fromkeys(SUBTASKS),
    total=2700,
    chance_micro=25.0,
    chance_macro=25.0,
    read_row=read_row,
    select=select,
    suffixes=(".mp4", ".avi", ".mov", ".mkv"),
    folder=Path(__file__).parent,
)

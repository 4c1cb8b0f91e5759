"""TOMATO: 1,484 questions about motion in six types (arXiv 2410.23266)."""

from pathlib import Path

from mapflow.results.contract.errors import MapflowError
from mapflow.tasks.benchmark import Benchmark
from mapflow.tasks.data_folder import Layout
from mapflow.tasks.rows import Entry, Row, answer_index_of, file_name_of, options_of, text_of

COUNTS = {
    "count": 292,
    "direction": 403,
    "rotation": 286,
    "shape_trend": 223,
    "velocity_frequency": 210,
    "visual_cues": 70,
}
FILES = {"shape_trend": "shape&trend", "velocity_frequency": "velocity&frequency"}
"""Names of question files that differ from the subtask's name."""
DEMONSTRATIONS = ("human", "object", "simulated")


def read_row(row: Row, subtask: str, question_id: str) -> Entry:
    """A row of TOMATO's layout, whose answer is an index into three to seven options.

    Raises MapflowError naming question and field.
    """
    options = options_of(row, "options", question_id)
    answer = answer_index_of(row, "answer", options, question_id)
    kind = text_of(row, "demonstration_type", question_id)
    if kind not in DEMONSTRATIONS:
        raise MapflowError(
            f"{question_id}: field 'demonstration_type': {kind!r} is none of"
            f" {', '.join(DEMONSTRATIONS)}"
        )
    key = file_name_of(row, "key", question_id)
    return Entry(
        video=f"{kind}/{key}.mp4",
        video_id=f"{kind}/{key}",
        video_field="key",
        stem=text_of(row, "question", question_id),
        options=tuple(options),
        target=answer,
        category=kind,
    )


BENCHMARK = Benchmark(
    name="tomato",
    title="TOMATO",
    layout=Layout(
        name="tomato",
        published_as="TOMATO",
        questions={subtask: f"data/{FILES.get(subtask, subtask)}.json" for subtask in COUNTS},
        videos=dict.fromkeys(COUNTS, "videos"),
        repository="yale-nlp/TOMATO",
        by_hand=(
            "TOMATO's questions are in data/ of https://github.com/yale-nlp/TOMATO: put them into"
            " {root}/data/. Its videos are on Google Drive, linked from there: put them at"
            " {root}/videos/human/, {root}/videos/object/ and {root}/videos/simulated/, or"
            " videos.zip into {root}"
        ),
    ),
    counts=COUNTS,
    chance_micro=19.91,
    chance_macro=None,
    read_row=read_row,
    folder=Path(__file__).parent,
    categories=DEMONSTRATIONS,
)

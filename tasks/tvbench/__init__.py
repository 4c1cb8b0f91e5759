"""TVBench: 2,525 questions in ten subtasks that depend on the order of the frames (2410.07752)."""

from pathlib import Path

from mapflow.tasks.benchmark import Benchmark
from mapflow.tasks.data_folder import Layout
from mapflow.tasks.rows import Entry, Row, candidates_entry

COUNTS = {
    "action_antonym": 320,
    "action_count": 536,
    "action_localization": 160,
    "action_sequence": 437,
    "egocentric_sequence": 200,
    "moving_direction": 232,
    "object_count": 148,
    "object_shuffle": 225,
    "scene_transition": 185,
    "unexpected_action": 82,
}
BOUNDED = {"action_localization", "action_sequence"}
"""Subtasks whose answers hold for a part of the video only, so that its bounds are required."""


def read_row(row: Row, subtask: str, question_id: str) -> Entry:
    """Raises MapflowError naming question and field."""
    return candidates_entry(row, subtask, question_id, bounds_required=subtask in BOUNDED)


BENCHMARK = Benchmark(
    name="tvbench",
    title="TVBench",
    layout=Layout(
        name="tvbench",
        published_as="TVBench",
        questions={subtask: f"json/{subtask}.json" for subtask in COUNTS},
        videos={subtask: f"video/{subtask}" for subtask in COUNTS},
        repository="FunAILab/TVBench",
        by_hand=(
            "Questions and zip files of nine subtasks' videos are at"
            " https://huggingface.co/datasets/FunAILab/TVBench: put json/ and video/ into {root},"
            " or let `mapflow data prepare --fetch` fetch them. Action Antonym's 320 .avi files are"
            " NTU RGB+D: ask for them at https://rose1.ntu.edu.sg/dataset/actionRecognition and put"
            " them into {root}/video/action_antonym/"
        ),
    ),
    counts=COUNTS,
    chance_micro=35.07,
    chance_macro=33.33,
    read_row=read_row,
    folder=Path(__file__).parent,
)

"""TVBench's question files as documents.

`json/<subtask>.json` beside `video/<subtask>/…`; the answer is a candidate's text. Two subtasks' labels hold for a
stretch of the video only, so their bounds are required. Knows no prompt.
"""

from __future__ import annotations

import json
from pathlib import Path

from mapflow.tasks.data_folder import DataFolder, Layout
from mapflow.tasks.documents import Document, candidates_to_document
from mapflow.tasks.rows import read_rows

SUBTASKS = {
    row["subtask"]: row
    for row in json.loads(Path(__file__).with_name("subtasks.json").read_text("utf-8"))
}
"""The publisher's own figures: questions, options a question, whether they name bounds (design.md, TVBench)."""

LAYOUT = Layout(
    name="tvbench",
    published_as="TVBench",
    questions={subtask: f"json/{subtask}.json" for subtask in SUBTASKS},
    videos={subtask: f"video/{subtask}" for subtask in SUBTASKS},
    repository="FunAILab/TVBench",
    by_hand=(
        "Questions and zip files of nine subtasks' videos are at https://huggingface.co/datasets/FunAILab/TVBench: put json/ and"
        " video/ into {root}, or let `mapflow data prepare --fetch` fetch them. Action Antonym's 320 .avi files are NTU RGB+D:"
        " ask for them at https://rose1.ntu.edu.sg/dataset/actionRecognition and put them into {root}/video/action_antonym/"
    ),
)


def read_documents(folder: DataFolder, subtask: str) -> list[Document]:
    """The subtask's questions in the file's order; missing videos are no reason to stop here.

    Raises MapflowError naming question and field for anything that is wrong with them.
    """
    return [
        candidates_to_document(
            row,
            benchmark="tvbench",
            subtask=subtask,
            number=number,
            video=lambda name: folder.video(subtask, name),
            bounds_required=SUBTASKS[subtask]["bounds"],
        )
        for number, row in read_rows(folder.questions(subtask))
    ]

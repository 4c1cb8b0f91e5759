"""TOMATO's question files as documents.

`data/<type>.json` beside `videos/<human|object|simulated>/<key>.mp4`; the answer is an index into three to seven
options. Knows no prompt.
"""

from __future__ import annotations

import json
from pathlib import Path

from mapflow.results.contract.errors import MapflowError
from mapflow.tasks.data_folder import DataFolder, Layout
from mapflow.tasks.documents import Document, located, numbered
from mapflow.tasks.rows import Row, answer_index_of, file_name_of, options_of, read_rows, text_of

SUBTASKS = {
    row["subtask"]: row
    for row in json.loads(Path(__file__).with_name("subtasks.json").read_text("utf-8"))
}
"""The publisher's own figures: questions, and the question file's name, which may hold an ampersand."""

DEMONSTRATIONS = ("human", "object", "simulated")

LAYOUT = Layout(
    name="tomato",
    published_as="TOMATO",
    questions={subtask: f"data/{row['file']}.json" for subtask, row in SUBTASKS.items()},
    videos={subtask: "videos" for subtask in SUBTASKS},
    repository="yale-nlp/TOMATO",
    by_hand=(
        "TOMATO's questions are in data/ of https://github.com/yale-nlp/TOMATO: put them into {root}/data/. Its videos are on"
        " Google Drive, linked from there: put them at {root}/videos/human/, {root}/videos/object/ and {root}/videos/simulated/, or videos.zip into {root}"
    ),
)


def read_documents(folder: DataFolder, subtask: str) -> list[Document]:
    """The type's questions in the file's order; missing videos are no reason to stop here.

    Raises MapflowError naming question and field for anything that is wrong with them.
    """
    return [
        _document(folder, subtask, number, row)
        for number, row in read_rows(folder.questions(subtask))
    ]


def _document(folder: DataFolder, subtask: str, number: str, row: Row) -> Document:
    where = numbered("tomato", subtask, number)
    options = options_of(row, "options", where)
    answer = answer_index_of(row, "answer", options, where)
    kind = text_of(row, "demonstration_type", where)
    if kind not in DEMONSTRATIONS:
        raise MapflowError(
            f"{where}: field 'demonstration_type': {kind!r} is none of {', '.join(DEMONSTRATIONS)}"
        )
    key = file_name_of(row, "key", where)
    return Document(
        question_id=where,
        video_id=f"{kind}/{key}",
        benchmark="tomato",
        task=f"mapflow_tomato_{subtask}",
        **located(lambda name: folder.video(subtask, name), f"{kind}/{key}.mp4", where, "key"),
        start=None,
        end=None,
        stem=text_of(row, "question", where),
        options=options,
        target=answer,
        target_text=options[answer],
        answer_begin="",
        category=kind,
    )

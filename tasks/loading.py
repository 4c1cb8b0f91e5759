"""Old form of `registry.load_questions`; its callers are being moved."""

from __future__ import annotations

import os
from pathlib import Path

from mapflow.tasks.documents import Document
from mapflow.tasks.registry import load_questions


def load_documents(tasks: str, limit: int | None = None) -> list[Document]:
    data_dir = os.environ.get("MAPFLOW_DATA")
    protocol = os.environ.get("MAPFLOW_PROTOCOL", "paper")
    found = load_questions(tasks, protocol, Path(data_dir) if data_dir else None, limit)
    return [{"task": one.task, "question_id": one.question_id} for one in found]  # type: ignore

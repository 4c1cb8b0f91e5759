"""A benchmark's files from the Hugging Face Hub, kept in the cache folder in the publisher's own layout.

Only reached when a task runs without a local folder, or when `mapflow data prepare --fetch` asks for it. What the Hub
does not hold (Layout.by_hand) stays missing.
"""

from __future__ import annotations

import json

from mapflow.results.contract.errors import MapflowError
from mapflow.tasks.data_folder import DataFolder, Layout, fetched_folder


def fetch(layout: Layout, subtask: str, folder: DataFolder | None = None) -> DataFolder:
    """The subtask's questions and, where the Hub has them, videos; files that are there already are kept.

    Raises MapflowError where the Hub cannot be reached and the questions are not there yet.
    """
    folder = fetched_folder(layout) if folder is None else folder
    from huggingface_hub import snapshot_download

    questions, videos = layout.questions[subtask], layout.videos[subtask]
    try:
        snapshot_download(
            layout.repository,
            repo_type="dataset",
            local_dir=folder.root,
            allow_patterns=[questions, f"{videos}.zip", f"{videos}/*"],
        )
        if not folder.questions(subtask).is_file():
            _write_split(layout, subtask, folder)
    except MapflowError:
        raise
    except Exception as error:  # the Hub's client raises anything from OSError to httpx's own
        if not folder.questions(subtask).is_file():
            raise MapflowError(
                f"{layout.published_as} is not on this machine and the Hub cannot be reached"
                f" ({' '.join(str(error).split())[:200]}); set MAPFLOW_DATA or --data_dir to a folder that holds it"
            ) from error
    return folder


def _write_split(layout: Layout, subtask: str, folder: DataFolder) -> None:
    """Questions that the Hub holds as a table alone (TOMATO's), as the publisher's question file."""
    from datasets import load_dataset

    rows = load_dataset(layout.repository, split=subtask).to_list()
    path = folder.questions(subtask)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps({str(number): row for number, row in enumerate(rows)}), encoding="utf-8"
    )

"""Registry of the formats that runs are exported to. A new format is a module and a line here."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from mapflow.results.exchange.content import Exported


class ExportFormat(NamedTuple):
    """A format: its one-line help, and "module:function" of its writer, imported when it runs.

    `scored` formats hold accuracies, so every answer has to be right or wrong; others hold records
    of any kind. `takes` names the flags that change the output.
    """

    help: str
    writer: str
    takes: tuple[str, ...] = ()
    scored: bool = True

    def write(self, exported: Exported, path: Path) -> list[Path]:
        """Writes the file or folder `path`; returns the files written.

        Raises MapflowError for what the format cannot hold and for a path that cannot be written.
        """
        module, _, name = self.writer.partition(":")
        return getattr(importlib.import_module(f"{__package__}.{module}"), name)(exported, path)


FORMATS: Mapping[str, ExportFormat] = {
    "csv": ExportFormat(
        "a file, one row per question and intervention", "frames:write_csv", scored=False
    ),
    "parquet": ExportFormat("the same as Parquet", "frames:write_parquet", scored=False),
    "every-eval-ever": ExportFormat(
        "a folder of documents in Every Eval Ever's schema, with their samples",
        "every_eval_ever:write_every_eval_ever",
        takes=("baseline", "dataset", "margin"),
    ),
    "eval-results": ExportFormat(
        "a YAML file for .eval_results/ of a model on the Hugging Face Hub",
        "hub_results:write_hub_results",
        takes=("dataset",),
    ),
    "inspect": ExportFormat(
        "a folder of logs for Inspect's viewer, or one .json file", "inspect_log:write_inspect"
    ),
}
"""Name, as in --to, → format."""

"""All analyses by name, and the names in a folder of one. Importing this imports no analysis."""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mapflow.harness.analyses.analysis import Analysis, QuestionAnalysis


@dataclass(frozen=True)
class Entry:
    """One analysis: the command `mapflow NAME`, its one-line help, and where its class is."""

    name: str
    help: str
    module: str
    class_name: str

    def load(self) -> type[Analysis]:
        """The class of the analysis."""
        module = importlib.import_module(f"mapflow.harness.analyses.{self.module}")
        return getattr(module, self.class_name)


ENTRIES = (
    Entry(
        "sweep",
        "knock out routes in a window around every layer: where does information flow?",
        "sweep",
        "Sweep",
    ),
    Entry(
        "trace",
        "how probable the right and the wrong answers are after every layer, under any"
        " intervention",
        "trace",
        "Trace",
    ),
    Entry(
        "lens",
        "which words video tokens look like in every layer, and how many are spatial or temporal",
        "lens",
        "Lens",
    ),
    Entry(
        "attention",
        "how much attention query positions pay to the video in every layer, under any"
        " intervention; drawn on the frames",
        "attention",
        "AttentionMaps",
    ),
    Entry(
        "discover",
        "which layers carry a model's pathways? Found on one half of the videos, scored on the"
        " other",
        "discovery.run",
        "Discovery",
    ),
)
DISCOVERY, DISCOVERED = "discover", "discovery.json"
"""The analysis that leaves sweeps and the runs that score them, and the file of its result."""
OVERLAY_FOLDER = "overlays"
"""Where an analysis leaves drawings on the frames."""
ANALYSES = {entry.name: entry for entry in ENTRIES}
"""Name → entry."""


def question_analyses() -> dict[str, type[QuestionAnalysis[Any]]]:
    """The analyses that leave a folder with records of their own, by name."""
    from mapflow.harness.analyses.analysis import QuestionAnalysis

    loaded = {entry.name: entry.load() for entry in ENTRIES}
    return {name: kind for name, kind in loaded.items() if issubclass(kind, QuestionAnalysis)}


def analyses_in(folder: Path) -> list[str]:
    """The analyses whose results are in `folder`, by name."""
    files = {name: kind.RECORD.FILE for name, kind in question_analyses().items()}
    files[DISCOVERY] = DISCOVERED
    # os.path answers for names that no file can have, too
    return [name for name, file in files.items() if os.path.isfile(folder / file)]  # noqa: PTH113


def asked_names(folder: Path) -> list[str]:
    """Interventions or routes in the order in which they were asked for; empty if unknown."""
    from mapflow.results.contract.files import read_json
    from mapflow.results.runs.folder import SUMMARY
    from mapflow.results.runs.manifest import read_manifest

    # An analysis of several benchmarks has a summary in a folder for each.
    summary = next(iter([*folder.glob(SUMMARY), *sorted(folder.glob(f"*/{SUMMARY}"))]), None)
    named = read_manifest(folder).get("interventions") or (read_json(summary) if summary else {})
    return [str(name) for name in named]

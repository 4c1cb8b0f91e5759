"""mapflow: where does information flow in a VideoLLM?

    import mapflow

    model = mapflow.load()                         # the bundled model; or a checkpoint folder
    answer = model.ask("clip.mp4", "Which way does it move?", ["left", "right"],
                       intervention="effective")
    answer.prediction, answer.probabilities, answer.edges_kept
    answer.attention(rows="question", layers=(6, 8))

    questions = mapflow.load_questions("mapflow_motion", limit=5)
    mapflow.sweep(model, questions, routes=["video:last"]).plot()

    mapflow.read_run("RUN").to_pandas()            # records of a run or analysis folder
    mapflow.compare("RUN").table                   # statistics as a data frame

Everything public is in `__all__`. Importing mapflow imports neither torch nor lmms-eval; each name
is loaded when it is first used. Errors that a user can correct are `mapflow.MapflowError`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mapflow.harness.api.analyses import (
        AnalysisResult,
        attention,
        discover,
        lens,
        sweep,
        trace,
    )
    from mapflow.harness.api.answer import Answer
    from mapflow.harness.api.model import Model, load
    from mapflow.harness.api.runs import Comparison, RunRecords, compare, read_run
    from mapflow.model_adapters.interventions import Intervention, parse_intervention
    from mapflow.results.contract.errors import MapflowError
    from mapflow.results.contract.question import Question
    from mapflow.tasks.registry import load_questions

    __version__: str

_HOME = {
    "Answer": "mapflow.harness.api.answer",
    "AnalysisResult": "mapflow.harness.api.analyses",
    "Comparison": "mapflow.harness.api.runs",
    "Intervention": "mapflow.model_adapters.interventions",
    "MapflowError": "mapflow.results.contract.errors",
    "Model": "mapflow.harness.api.model",
    "Question": "mapflow.results.contract.question",
    "RunRecords": "mapflow.harness.api.runs",
    "attention": "mapflow.harness.api.analyses",
    "compare": "mapflow.harness.api.runs",
    "discover": "mapflow.harness.api.analyses",
    "lens": "mapflow.harness.api.analyses",
    "load": "mapflow.harness.api.model",
    "load_questions": "mapflow.tasks.registry",
    "parse_intervention": "mapflow.model_adapters.interventions",
    "read_run": "mapflow.harness.api.runs",
    "sweep": "mapflow.harness.api.analyses",
    "trace": "mapflow.harness.api.analyses",
}
"""Public name -> module that defines it."""

__all__ = [
    "AnalysisResult",
    "Answer",
    "Comparison",
    "Intervention",
    "MapflowError",
    "Model",
    "Question",
    "RunRecords",
    "__version__",
    "attention",
    "compare",
    "discover",
    "lens",
    "load",
    "load_questions",
    "parse_intervention",
    "read_run",
    "sweep",
    "trace",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("mapflow")
    if name not in _HOME:
        raise AttributeError(f"module 'mapflow' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

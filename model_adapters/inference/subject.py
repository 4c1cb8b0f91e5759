"""Subject: a loaded model and its questions, and the values that identify their run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mapflow.model_adapters.inference.identity import declared_identity, fitted
from mapflow.model_adapters.interventions import Intervention
from mapflow.model_adapters.video_llm import VideoLLM
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import Question


@dataclass(frozen=True)
class Subject:
    """The model and the questions of an analysis.

    `name` is the model family as users type it, e.g. mapflow_llava.
    """

    name: str
    model: VideoLLM
    questions: Sequence[Question]

    @property
    def protocol(self) -> str:
        """The wording of the questions.

        Raises MapflowError without questions, and if they have several wordings.
        """
        found = sorted({question.protocol for question in self.questions})
        if not found:
            raise MapflowError("no questions were selected: choose another --task")
        if len(found) > 1:
            raise MapflowError(
                f"questions are worded by the protocols {' and '.join(found)}: ask one at a time"
            )
        return found[0]

    @property
    def identity(self) -> dict[str, Any]:
        """See `run_identity`."""
        return run_identity(self.name, self.model, self.protocol)


def run_identity(model: str, video_llm: VideoLLM, protocol: str) -> dict[str, Any]:
    """Values that two runs must share for their records to belong together.

    `model` is the name as users type it. `model_args` holds the family's own arguments, if it has
    any, with the defaults filled in.
    """
    known = declared_identity(model, video_llm.name, video_llm.arguments, protocol)
    loaded = {
        "digest": video_llm.digest,
        "dtype": str(weights_dtype(video_llm)).removeprefix("torch."),
    }
    order = ("model", "checkpoint", "digest", "protocol", "dtype")
    return {name: (known | loaded)[name] for name in order} | known


def fit_interventions(
    interventions: Sequence[Intervention], model: VideoLLM
) -> tuple[Intervention, ...]:
    """Interventions with the layer ranges that they borrow from another model filled in.

    Raises MapflowError if the model lacks layers or pathway ranges that one of them needs.
    """
    return fitted(interventions, model.decoder.n_layers, model.pathways)


def weights_dtype(model: VideoLLM) -> torch.dtype:
    """The precision of the weights."""
    return next(model.model.parameters()).dtype

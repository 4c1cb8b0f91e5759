"""Lens: which words do video tokens look like, layer by layer? The logit lens on every video position.

By default each layer's output goes through the final norm and the head. The released code reads layers' inputs against
the raw input embeddings, un-normed; that is the variant `raw_embeddings`. Knows no checkpoint, no task, no file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jaxtyping import Int
from torch import Tensor

from mapflow.model_adapters.interventions import Intervention, TokenLayout
from mapflow.model_adapters.interventions.execution.readout import (
    embedding_logits,
    hidden_states,
    layer_inputs,
    layer_outputs,
    top_k,
)
from mapflow.model_adapters.video_llm import Prepared, VideoLLM
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import Question
from mapflow.results.records.lens import LensRecord


@dataclass(frozen=True)
class Lens:
    """What to look at: the `k` most probable tokens at every video position."""

    interventions: tuple[Intervention, ...]
    k: int = 5
    raw_embeddings: bool = False


def lens_question(model: VideoLLM, prepared: Prepared, lens: Lens) -> list[LensRecord]:
    """A record an intervention. Raises MapflowError, naming the question, where one does not fit the prompt."""
    question, decoder, layout = prepared.question, model.decoder, prepared.layout
    video = layout.positions("video")
    (inputs,) = model.embed([prepared])
    records = []
    for intervention in lens.interventions:
        try:
            compiled = intervention.compile(
                layout, decoder.n_layers, model.pathways, question.question_id
            )
        except MapflowError as error:
            raise MapflowError(f"question {question.question_id} cannot be read: {error}") from None
        hidden = hidden_states(decoder, inputs, compiled, video)
        if lens.raw_embeddings:
            ids, found = top_k(embedding_logits(decoder), layer_inputs(decoder, hidden), lens.k)
        else:
            ids, found = top_k(decoder.logits, layer_outputs(decoder, hidden), lens.k)
        if not found.isfinite().all():
            why = "the model's logits are not finite"
            records.append(LensRecord(**_identity(question, lens, intervention), error=why))
            continue
        records.append(
            LensRecord(
                **_identity(question, lens, intervention),
                frames=_frames(layout, video),
                ids=tuple(ids.tolist()),
                probabilities=tuple(
                    [[_short(p) for p in token] for token in row] for row in found.tolist()
                ),
                words={str(one): _text(model, one) for one in ids.unique().tolist()},
            )
        )
    return records


def failed(question: Question, lens: Lens, reason: str) -> list[LensRecord]:
    """The records of a question that could not be asked; `reason` is one line."""
    why = " ".join(reason.split())
    return [LensRecord(**_identity(question, lens, one), error=why) for one in lens.interventions]


def _frames(layout: TokenLayout, positions: Int[Tensor, " position"]) -> tuple[int, ...]:
    segments = [layout.segments[index] for index in layout.segment_of[positions].tolist()]
    return tuple(segment.index or 0 for segment in segments)


def _short(p: float) -> float:
    """Six significant digits, more than float32 runs agree on, in a third of the space."""
    return float(f"{p:.6g}")


def _identity(question: Question, lens: Lens, intervention: Intervention) -> dict[str, Any]:
    return {
        **question.identity,
        "intervention": str(intervention),
        "raw_embeddings": lens.raw_embeddings,
    }


def _text(model: VideoLLM, token: int) -> str:
    return str(model.tokenizer.decode([token])).strip()

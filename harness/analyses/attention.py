"""Attention maps: how much do chosen rows, the answer's by default, look at each video token, layer by layer?

Under any intervention, so that a knockout can be compared with the plain run. Knows no checkpoint, no task, no file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from mapflow.model_adapters.interventions import Intervention, Route, attention_weights
from mapflow.model_adapters.interventions.language.layout import SELECTORS
from mapflow.model_adapters.video_llm import Prepared, VideoLLM
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import Question
from mapflow.results.records.attention import PARTS, AttentionRecord


@dataclass(frozen=True)
class AttentionMaps:
    """What to look at: the attention of `rows`, a segment's name."""

    interventions: tuple[Intervention, ...]
    rows: str = "last"


def check_rows(name: str) -> str:
    """The segment's name, trimmed. Raises MapflowError for one that no prompt can have."""
    try:
        return Route.parse(f"video->{name}").target
    except MapflowError:
        raise MapflowError(
            f"--rows {name!r} names no segment; known: {', '.join(SELECTORS)}, frame[i], option[i]"
        ) from None


def map_question(model: VideoLLM, prepared: Prepared, maps: AttentionMaps) -> list[AttentionRecord]:
    """A record an intervention. Raises MapflowError, naming the question, where the rows or an intervention do not fit the
    prompt."""
    question, decoder, layout = prepared.question, model.decoder, prepared.layout
    try:
        rows = layout.positions(maps.rows)
        compiled = [
            one.compile(layout, decoder.n_layers, model.pathways, question.question_id)
            for one in maps.interventions
        ]
    except MapflowError as error:
        why = "; an open-ended question has no options" if not question.options else ""
        raise MapflowError(
            f"question {question.question_id} cannot be mapped: {error}{why}"
        ) from None
    (inputs,) = model.embed([prepared])
    video = layout.positions("video")
    frame_of = torch.tensor([segment.index for segment in layout.segments])[
        layout.segment_of[video]
    ]
    parts = {part: _positions(prepared, part) for part in PARTS}
    records = []
    for intervention, one in zip(maps.interventions, compiled, strict=True):
        weights = attention_weights(decoder, inputs, one, rows)
        identity = _identity(question, maps, intervention)
        if not weights.isfinite().all():
            records.append(
                AttentionRecord(**identity, error="the model's attention weights are not finite")
            )
            continue
        by_frame = weights.new_zeros(len(weights), layout.n_frames).index_add_(
            1, frame_of, weights[:, video]
        )
        records.append(
            AttentionRecord(
                **identity,
                n_rows=len(rows),
                frames=tuple(frame_of.tolist()),
                weights=tuple(map(_short, weights[:, video].tolist())),
                by_frame=tuple(map(_short, by_frame.tolist())),
                shares={
                    part: _short(weights[:, own].sum(-1).tolist()) for part, own in parts.items()
                },
            )
        )
    return records


def failed(question: Question, maps: AttentionMaps, reason: str) -> list[AttentionRecord]:
    """The records of a question that could not be asked; `reason` is one line."""
    why = " ".join(reason.split())
    return [
        AttentionRecord(**_identity(question, maps, one), error=why) for one in maps.interventions
    ]


def _positions(prepared: Prepared, part: str) -> torch.Tensor:
    """None of a part that this prompt lacks."""
    try:
        return prepared.layout.positions(part)
    except MapflowError:
        return torch.tensor([], dtype=torch.long)


def _short(weights: list[float]) -> list[float]:
    """Six significant digits, more than float32 runs agree on, in a third of the space."""
    return [float(f"{weight:.6g}") for weight in weights]


def _identity(
    question: Question, maps: AttentionMaps, intervention: Intervention
) -> dict[str, Any]:
    return {
        **question.identity,
        "intervention": str(intervention),
        "rows": maps.rows,
    }

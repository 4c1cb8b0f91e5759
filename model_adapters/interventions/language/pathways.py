"""PathwayRanges: in which layers a model's effective pathways run.

They are data, not code: one YAML file per model, measured (paper, Section 4; `mapflow discover`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from mapflow.model_adapters.interventions.language.layers import LayerSpan
from mapflow.results.contract.errors import MapflowError


@dataclass(frozen=True)
class PathwayRanges:
    """The layers in which frames attend to earlier frames, the question to video, and the last
    token to the question.
    """

    cross_frame: LayerSpan
    video_to_question: LayerSpan
    question_to_last: LayerSpan

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], where: str) -> PathwayRanges:
        """From three named ranges ("6-15"). Raises MapflowError naming `where` and the missing or
        unknown range.
        """
        names = [f.name for f in fields(cls)]
        missing = [name for name in names if name not in values]
        unknown = [name for name in values if name not in names]
        if missing or unknown:
            problem = f"lacks {missing[0]!r}" if missing else f"has unknown range {unknown[0]!r}"
            raise MapflowError(f"{where} {problem}; it takes {', '.join(names)}")
        return cls(*(LayerSpan.parse(str(values[name])) for name in names))

    def scaled(self, depth: int, n_layers: int) -> PathwayRanges:
        """For a model of `n_layers`, from one of `depth`: both ends of a range keep their share of
        the depth.

        Consecutive ranges stay consecutive; a range keeps at least one layer.
        """

        def scale(span: LayerSpan) -> LayerSpan:
            before, last = (
                int(layer * n_layers / depth + 0.5) for layer in (span.first - 1, span.last)
            )
            first = min(before + 1, n_layers)
            return LayerSpan(first, max(first, last))

        return PathwayRanges(*(scale(getattr(self, f.name)) for f in fields(self)))

    def __str__(self) -> str:
        return ",".join(f"{f.name}={getattr(self, f.name)}" for f in fields(self))

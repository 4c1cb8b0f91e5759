"""The paper's policy: only effective pathways stay open (paper, Section 4.3 and Table 3).

Each of the three pathways stays open in its own range of layers only; short-cuts from video to the
last token are closed everywhere; edges that a finished pathway no longer needs are closed after its
end.

In the paper `question` is stem and options only: the template positions after it are never cut, so
video -> template -> last stays open in every layer. `strict` closes that leak: template positions
too attend to video only where the question may.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from mapflow.model_adapters.interventions.language.layers import LayerSpan
from mapflow.model_adapters.interventions.language.layout import TokenLayout
from mapflow.model_adapters.interventions.language.pathways import PathwayRanges
from mapflow.model_adapters.interventions.language.policies.policy import (
    Cuts,
    Policy,
    cut_route,
    no_cuts,
    parse_options,
)
from mapflow.model_adapters.interventions.language.route import Route
from mapflow.results.contract.errors import MapflowError


@dataclass(frozen=True)
class Effective(Policy):
    """`ranges` None: the model's own ranges. With `scale` the ranges of the model of that name,
    scaled to the depth of the model that runs (`resolve` fills them in).
    """

    names: ClassVar[tuple[str, ...]] = ("effective", "effective-strict")
    ranges: PathwayRanges | None = None
    strict: bool = False
    scale: str | None = None

    def __post_init__(self) -> None:
        if self.scale == "":
            raise MapflowError("effective:scale= names no model")

    @classmethod
    def parse(cls, term: str) -> Effective:
        """From "effective", "effective:scale=MODEL" or "effective:cross_frame=A-B,…"."""
        head, _, options = term.partition(":")
        name = head.strip()
        given = parse_options(options)
        if [*given] == ["scale"]:
            return cls(strict=name == "effective-strict", scale=given["scale"])
        ranges = PathwayRanges.from_mapping(given, repr(name)) if options else None
        return cls(ranges, strict=name == "effective-strict")

    @classmethod
    def from_yaml(cls, name: str, value: Any) -> Effective:
        """From a mapping of the three ranges."""
        return cls(PathwayRanges.from_mapping(value, name), strict=name == "effective-strict")

    @property
    def scaled_from(self) -> str | None:
        return self.scale

    def resolve(self, find: Callable[[str, int], PathwayRanges], n_layers: int) -> Effective:
        return replace(self, ranges=find(self.scale, n_layers)) if self.scale else self

    def with_ranges(self, pathways: PathwayRanges | None) -> Effective:
        return Effective(self.ranges or pathways, self.strict)

    def cuts(self, layout: TokenLayout, n_layers: int, pathways: PathwayRanges | None) -> Cuts:
        """Raises MapflowError if neither the policy nor the model has layer ranges."""
        ranges = self.ranges or (None if self.scale else pathways)
        if ranges is None:
            raise MapflowError(
                f"{self} has not been resolved for this model's depth"
                if self.scale
                else "'effective' needs layer ranges and none are known for this model:"
                " find them with `mapflow discover`, borrow a published model's, scaled by depth,"
                " with effective:scale=MODEL (and random:scale=MODEL), or give"
                " effective:cross_frame=A-B,video_to_question=A-B,question_to_last=A-B"
            )
        cuts = no_cuts(layout, n_layers)

        def cut(route: str, layers: list[int] | range) -> None:
            cut_route(cuts, Route.parse(route), layout, layers)

        def outside(span: LayerSpan) -> list[int]:
            inside = span.indices(n_layers)
            return [layer for layer in range(n_layers) if layer not in inside]

        def after(span: LayerSpan) -> range:
            return range(span.indices(n_layers).stop, n_layers)

        cut("cross-frame", outside(ranges.cross_frame))
        cut("video->question", outside(ranges.video_to_question))
        cut("question->last", outside(ranges.question_to_last))
        cut("video->last", range(n_layers))
        cut("last->last", range(n_layers))
        cut("video->video", after(ranges.video_to_question))
        cut("question->question", after(ranges.question_to_last))
        if self.strict:
            cut("video->template", outside(ranges.video_to_question))
        return cuts

    def __str__(self) -> str:
        name = "effective-strict" if self.strict else "effective"
        if self.scale:
            return f"{name}:scale={self.scale}"
        return f"{name}:{self.ranges}" if self.ranges else name

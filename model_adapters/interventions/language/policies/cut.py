"""Cuts of named routes, in a range of layers or in a window.

Forms: `video:question@6-20` and `knockout:video:last@center=12,window=9`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mapflow.model_adapters.interventions.language.layers import (
    DEFAULT_SIZE,
    WINDOW_STYLES,
    LayerSpan,
    Window,
    WindowStyle,
)
from mapflow.model_adapters.interventions.language.layout import TokenLayout
from mapflow.model_adapters.interventions.language.pathways import PathwayRanges
from mapflow.model_adapters.interventions.language.policies.policy import (
    Cuts,
    Policy,
    cut_route,
    no_cuts,
    parse_options,
    typed_options,
)
from mapflow.model_adapters.interventions.language.route import Route, is_route, redirect_hint
from mapflow.results.contract.errors import MapflowError


@dataclass(frozen=True)
class Cut(Policy):
    """One route, cut in `layers` (None: in every layer)."""

    is_route: ClassVar[bool] = True

    route: Route
    layers: LayerSpan | None = None

    @classmethod
    def claims(cls, term: str) -> bool:
        return is_route(term.partition("@")[0])

    @classmethod
    def parse(cls, term: str) -> Cut:
        """From "source:target" or "source:target@6-20"."""
        route, at, layers = term.partition("@")
        return cls(Route.parse(route), LayerSpan.parse(layers) if at else None)

    def cuts(self, layout: TokenLayout, n_layers: int, pathways: PathwayRanges | None) -> Cuts:
        cuts = no_cuts(layout, n_layers)
        cut_route(
            cuts,
            self.route,
            layout,
            self.layers.indices(n_layers) if self.layers else range(n_layers),
        )
        return cuts

    def __str__(self) -> str:
        return f"{self.route}@{self.layers}" if self.layers else str(self.route)


@dataclass(frozen=True)
class Knockout(Policy):
    """One route, cut in a window of layers (paper, Section 3)."""

    names: ClassVar[tuple[str, ...]] = ("knockout",)
    is_route: ClassVar[bool] = True

    route: Route
    window: Window

    @classmethod
    def parse(cls, term: str) -> Knockout:
        """From "knockout:source:target@STYLE=LAYER,window=K"."""
        text = term.partition(":")[2]
        route, at, window = text.partition("@")
        options = parse_options(window)
        style: WindowStyle | None = next((one for one in WINDOW_STYLES if one in options), None)
        if not at or style is None or set(options) - {style, "window"}:
            form = "source:target@STYLE=LAYER,window=K with STYLE one of"
            raise MapflowError(
                f"knockout {text!r}"
                + (redirect_hint(text) or f" is not of the form {form} {', '.join(WINDOW_STYLES)}")
            )
        numbers = typed_options(options, {key: int for key in options}, "knockout")
        size = numbers.get("window", DEFAULT_SIZE)
        return cls(Route.parse(route), Window(style, numbers[style], size))

    def cuts(self, layout: TokenLayout, n_layers: int, pathways: PathwayRanges | None) -> Cuts:
        cuts = no_cuts(layout, n_layers)
        cut_route(cuts, self.route, layout, self.window.indices(n_layers))
        return cuts

    def __str__(self) -> str:
        return f"knockout:{self.route}@{self.window}"

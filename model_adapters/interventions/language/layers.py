"""Layers as users write them: 1-based and inclusive ("L6-15"); 0-based only inside the compiler.

`LayerSpan` is a range that a user typed, `Window` a knockout's window around a layer (paper,
Section 3; k = 9).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from mapflow.results.contract.errors import MapflowError

WindowStyle = Literal["center", "inverse", "top-down", "bottom-up"]
WINDOW_STYLES: tuple[WindowStyle, ...] = get_args(WindowStyle)
SIZED_STYLES = ("center", "inverse")
DEFAULT_SIZE = 9


@dataclass(frozen=True)
class LayerSpan:
    """Layers `first` to `last`, 1-based, both included. Raises MapflowError on layer 0 and on an
    empty range.
    """

    first: int
    last: int

    def __post_init__(self) -> None:
        if not 1 <= self.first <= self.last:
            raise MapflowError(f"layers {self.first}-{self.last} must count up from 1")

    @classmethod
    def parse(cls, text: str) -> LayerSpan:
        """From "6-15" or "7". Raises MapflowError on anything else."""
        match = re.fullmatch(r"\s*(\d{1,6})\s*(?:-\s*(\d{1,6}))?\s*", text)
        if not match:
            raise MapflowError(f"layers {text.strip()!r} are not of the form 6-15 or 7")
        return cls(int(match[1]), int(match[2] or match[1]))

    def indices(self, n_layers: int) -> range:
        """0-based layer indices. Raises MapflowError if the model has fewer layers."""
        if self.last > n_layers:
            raise MapflowError(
                f"layer {self.last} is outside 1..{n_layers}, the layers of this model"
            )
        return range(self.first - 1, self.last)

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


@dataclass(frozen=True)
class Window:
    """A knockout's window: which layers are cut when it is placed at `layer` (1-based).

    center covers `size` layers around it; even sizes extend towards earlier layers, as in the
    authors' code. inverse covers all others. top-down covers it and all later layers, bottom-up it
    and all earlier ones; these two have no `size`.
    """

    style: WindowStyle
    layer: int
    size: int = DEFAULT_SIZE

    def __post_init__(self) -> None:
        if self.size < 1:
            raise MapflowError(f"window={self.size} must be at least 1 layer")
        if self.style not in SIZED_STYLES:  # equal windows must compare equal
            object.__setattr__(self, "size", DEFAULT_SIZE)

    def indices(self, n_layers: int) -> list[int]:
        """0-based layer indices. Raises MapflowError if `layer` is outside 1..n_layers."""
        if not 1 <= self.layer <= n_layers:
            raise MapflowError(
                f"layer {self.layer} is outside 1..{n_layers}, the layers of this model"
            )
        index = self.layer - 1
        center = range(max(0, index - self.size // 2), min(n_layers, index - (-self.size // 2)))
        chosen = {
            "center": center,
            "inverse": (layer for layer in range(n_layers) if layer not in center),
            "top-down": range(index, n_layers),
            "bottom-up": range(index + 1),
        }
        return list(chosen[self.style])

    def __str__(self) -> str:
        sized = f",window={self.size}" if self.style in SIZED_STYLES else ""
        return f"{self.style}={self.layer}{sized}"

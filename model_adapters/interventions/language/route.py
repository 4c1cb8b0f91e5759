"""Route: `source -> target`, a named bundle of attention edges (keys of source, queries of target).

`cross-frame` is the one route that two names cannot express: every frame attends to the other
frames: those before it, and later ones in models whose frames attend in both directions.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from mapflow.model_adapters.interventions.language.layout import SELECTORS, TokenLayout
from mapflow.results.contract.errors import MapflowError

CROSS_FRAME = "cross-frame"
_INDEXED = re.compile(r"(frame|option)\[\d{1,4}\]")


@dataclass(frozen=True)
class Route:
    """All edges from keys in `source` to queries in `target` (`SELECTORS`, `frame[i]`,
    `option[i]`).
    """

    source: str
    target: str

    @classmethod
    def parse(cls, text: str) -> Route:
        """From "video->question" or "cross-frame". Raises MapflowError naming the nearest known
        segment.
        """
        text = text.strip()
        if text == CROSS_FRAME:
            return cls(CROSS_FRAME, CROSS_FRAME)
        ends = [end.strip() for end in re.split(r"->|→", text)]
        if len(ends) != 2:
            raise MapflowError(
                f"unknown route {text!r}: write source->target or {CROSS_FRAME}"
                f"{_nearest(text, [CROSS_FRAME])}"
            )
        for end in ends:
            if end not in SELECTORS and not _INDEXED.fullmatch(end):
                raise MapflowError(
                    f"unknown segment {end!r} in route {text!r}{_nearest(end, list(SELECTORS))}"
                )
        return cls(*ends)

    def edges(self, layout: TokenLayout) -> Bool[np.ndarray, "target source"]:
        """True for the (target, source) segment pairs that the route covers in this prompt."""
        if self.source == CROSS_FRAME:
            frame = np.array([s.index if s.kind == "frame" else -1 for s in layout.segments])
            both = (frame[None] >= 0) & (frame[:, None] >= 0)
            return both & (frame[:, None] != frame[None])
        return layout.select(self.target)[:, None] & layout.select(self.source)[None]

    def __str__(self) -> str:
        return CROSS_FRAME if self.source == CROSS_FRAME else f"{self.source}->{self.target}"


def _nearest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"

"""Route: `source -> target`, a named bundle of attention edges (keys of source, queries of target).

People write `video:question`, `video->question` or `video→question`; records, tables and manifests
hold `video->question`. The colon is for command lines: an unquoted `>` is a shell's redirect.

`cross-frame` is the one route that two names cannot express: every frame attends to the other
frames: those before it, and later ones in models whose frames attend in both directions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from mapflow.model_adapters.interventions.language.layout import SELECTORS, TokenLayout
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.visible_text import nearest

CROSS_FRAME = "cross-frame"
_INDEXED = re.compile(r"(frame|option)\[\d{1,4}\]")
_ARROW = re.compile(r"->|→|:")


@dataclass(frozen=True)
class Route:
    """All edges from keys in `source` to queries in `target` (`SELECTORS`, `frame[i]`,
    `option[i]`).
    """

    source: str
    target: str

    @classmethod
    def parse(cls, text: str) -> Route:
        """From "video:question", "video->question", "video→question" or "cross-frame". Raises
        MapflowError naming the nearest known segment.
        """
        text = text.strip()
        if text == CROSS_FRAME:
            return cls(CROSS_FRAME, CROSS_FRAME)
        ends = [end.strip() for end in _ARROW.split(text)]
        if len(ends) != 2:
            raise MapflowError(
                f"unknown route {text!r}"
                + (redirect_hint(text) or f": write source:target or {CROSS_FRAME}")
                + (f"; {near}" if (near := nearest(text, [CROSS_FRAME])) else "")
            )
        for end in ends:
            if not is_segment(end):
                near = nearest(end, SELECTORS, f"known: {', '.join(SELECTORS)}")
                raise MapflowError(f"unknown segment {end!r} in route {text!r}; {near}")
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


def is_segment(name: str) -> bool:
    """Whether routes may name it."""
    return name in SELECTORS or bool(_INDEXED.fullmatch(name))


def is_route(text: str) -> bool:
    """Whether the text, without layers, is meant as a route, valid or not.

    A colon also ends a policy's name ("random:seed=1"): with it, one end must be a known segment.
    """
    ends = [end.strip() for end in _ARROW.split(text)]
    arrow = "->" in text or "→" in text or text.strip().startswith(CROSS_FRAME)
    return arrow or (len(ends) > 1 and any(map(is_segment, ends)))


def redirect_hint(text: str) -> str:
    """What to say of `video-`, which is what a shell leaves of an unquoted `video->question`; else
    "".
    """
    found = re.search(r"(?<![\w\[\]])([\w\[\]]{1,80})-$", text.strip())
    source = found[1] if found and "@" not in text else ""
    if not is_segment(source) and not nearest(source, SELECTORS):
        return ""
    return f": the shell took '>…' as a redirect; write {source}:TARGET or quote it"

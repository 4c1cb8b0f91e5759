"""The reference implementation of interventions, in loops over single positions.

Written from the definitions alone. Every position is a (kind, index) pair, every intervention a
plain `Spec`; no segment matrix, no run, no tensor before the last line. The fast code must agree
with this file, so nothing here may import it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

Position = tuple[str, int]
"""What a position is: ("frame", 2), ("option", 0), ("stem", 0), ("label", 0), …"""


@dataclass(frozen=True)
class Prompt:
    """One prompt, position by position."""

    positions: tuple[Position, ...]
    true_option: int | None = None

    def __len__(self) -> int:
        return len(self.positions)

    def called(self, p: int, name: str) -> bool:
        """Does position p carry this name? (video, question = stem + options, true_option …)"""
        kind, index = self.positions[p]
        match name:
            case "all":
                return True
            case "video":
                return kind == "frame"
            case "question":
                return kind in ("label", "stem", "option")
            case "options":
                return kind == "option"
            case "true_option":
                return kind == "option" and index == self.true_option
            case "false_options":
                return (
                    kind == "option" and self.true_option is not None and index != self.true_option
                )
            case "system" | "stem" | "template" | "last":
                return kind == name
        return name == f"{kind}[{index}]"

    def all_called(self, name: str) -> list[int]:
        return [p for p in range(len(self)) if self.called(p, name)]


@dataclass(frozen=True)
class Term:
    """One summand of an intervention. `kind`: route, knockout, effective(-strict) or random."""

    kind: str
    source: str = ""
    target: str = ""
    layers: tuple[int, int] | None = None
    window: tuple[str, int, int] | None = None
    ranges: tuple[tuple[int, int], tuple[int, int], tuple[int, int]] | None = None
    ratio: float | None = None
    seed: int = 0

    def __str__(self) -> str:
        route = self.source if self.source == "cross-frame" else f"{self.source}->{self.target}"
        if self.kind == "route":
            return route + (f"@{self.layers[0]}-{self.layers[1]}" if self.layers else "")
        if self.kind == "knockout":
            assert self.window
            style, layer, size = self.window
            return f"knockout:{route}@{style}={layer},window={size}"
        if self.kind == "random":
            ratio = "" if self.ratio is None else f"ratio={self.ratio!r},"
            return f"random:{ratio}seed={self.seed}"
        if self.ranges is None:
            return self.kind
        names = ("cross_frame", "video_to_question", "question_to_last")
        return f"{self.kind}:" + ",".join(
            f"{n}={a}-{b}" for n, (a, b) in zip(names, self.ranges, strict=True)
        )


@dataclass(frozen=True)
class Spec:
    """An intervention as plain data; `str()` is what a user would type."""

    terms: tuple[Term, ...] = ()
    keep: bool = False
    default_ranges: tuple[tuple[int, int], tuple[int, int], tuple[int, int]] = field(
        default=((1, 1), (1, 1), (1, 1))
    )

    def __str__(self) -> str:
        return ("keep:" if self.keep else "") + ("+".join(map(str, self.terms)) or "full")


def window(style: str, layer: int, size: int, n_layers: int) -> set[int]:
    """1-based layers of a knockout's window. `layer` is 1-based; the rule counts from 0, end
    exclusive.
    """
    z = layer - 1
    inside = {
        i + 1
        for i in range(n_layers)
        if max(0, z - size // 2) <= i < min(n_layers, z - (-size // 2))
    }
    return {
        "center": inside,
        "inverse": set(range(1, n_layers + 1)) - inside,
        "top-down": set(range(layer, n_layers + 1)),
        "bottom-up": set(range(1, layer + 1)),
    }[style]


def on_route(prompt: Prompt, q: int, k: int, source: str, target: str) -> bool:
    """Is (query q, key k) an edge of source -> target?"""
    if source == "cross-frame":
        (q_kind, q_frame), (k_kind, k_frame) = prompt.positions[q], prompt.positions[k]
        return q_kind == k_kind == "frame" and k_frame < q_frame
    return prompt.called(q, target) and prompt.called(k, source)


def effective_cuts(prompt: Prompt, q: int, k: int, layer: int, ranges, strict: bool) -> bool:
    """Keep cross-frame, video->question, question->last in their ranges only; cut video->last and
    last->last everywhere; video->video after video->question ends, question->question after
    question->last ends.
    """

    def edge(source: str, target: str) -> bool:
        return on_route(prompt, q, k, source, target)

    (cross_a, cross_b), (video_a, video_b), (question_a, question_b) = ranges
    return (
        (edge("cross-frame", "") and not cross_a <= layer <= cross_b)
        or (edge("video", "question") and not video_a <= layer <= video_b)
        or (edge("question", "last") and not question_a <= layer <= question_b)
        or edge("video", "last")
        or edge("last", "last")
        or (edge("video", "video") and layer > video_b)
        or (edge("question", "question") and layer > question_b)
        or (strict and edge("video", "template") and not video_a <= layer <= video_b)
    )


def named(
    prompt: Prompt, spec: Spec, term: Term, q: int, k: int, layer: int, n_layers: int
) -> bool:
    """Does this term name the edge (q, k) in this 1-based layer? Random terms name none here."""
    match term.kind:
        case "route":
            first, last = term.layers or (1, n_layers)
            return first <= layer <= last and on_route(prompt, q, k, term.source, term.target)
        case "knockout":
            assert term.window
            return layer in window(*term.window, n_layers) and on_route(
                prompt, q, k, term.source, term.target
            )
        case "effective" | "effective-strict":
            ranges = term.ranges or spec.default_ranges
            return effective_cuts(prompt, q, k, layer, ranges, term.kind == "effective-strict")
    return False


def allowed(prompt: Prompt, spec: Spec, layer: int, n_layers: int) -> list[list[bool]]:
    """[query][key] of a 1-based layer, random blocking left out."""

    def kept(q: int, k: int) -> bool:
        if k > q:
            return False
        return any(named(prompt, spec, t, q, k, layer, n_layers) for t in spec.terms) == spec.keep

    return [[kept(q, k) for k in range(len(prompt))] for q in range(len(prompt))]


def influenced(masks: list[list[list[bool]]], sources: list[int]) -> set[int]:
    """Positions that anything at `sources` (before the first layer) can influence after the last
    one.
    """
    told = set(sources)
    for mask in masks:
        told |= {q for q, row in enumerate(mask) if any(row[k] for k in told)}
    return told


def grown(mask: list[list[bool]], n_new: int) -> list[list[bool]]:
    """With `n_new` generated rows: prompt keys as the last prompt row has them, generated keys free
    (causally).
    """
    prompt_rows = [row + [False] * n_new for row in mask]
    return prompt_rows + [mask[-1] + [j <= i for j in range(n_new)] for i in range(n_new)]

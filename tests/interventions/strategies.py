"""Random prompts and random interventions, as plain data (`naive`) beside the real thing."""

from __future__ import annotations

import os
from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from naive import Prompt, Spec, Term

from mapflow.model_adapters.interventions import (
    Compiled,
    LayerSpan,
    PathwayRanges,
    Segment,
    TokenLayout,
    parse_intervention,
)

EXAMPLES = int(os.environ.get("MAPFLOW_EXAMPLES", "30"))
"""Set MAPFLOW_EXAMPLES to thousands for a long search."""
quick = settings(max_examples=EXAMPLES, deadline=None)
few = settings(max_examples=max(1, EXAMPLES // 2), deadline=None)
"""For properties that run a model."""
STYLES = ("center", "inverse", "top-down", "bottom-up")


@st.composite
def prompts(draw, max_frames: int = 4, usual: bool = False) -> Prompt:
    """System, frames (with template between them now and then), labels, stem, options, template,
    last.

    Open-ended prompts, prompts without system text and, unless `usual`, questions before the video
    occur.
    """
    size = st.integers(1, 3)

    def run(kind: str, index: int = 0) -> list[tuple[str, int]]:
        return [(kind, index)] * draw(size)

    def maybe(kind: str) -> list[tuple[str, int]]:
        return run(kind) if draw(st.booleans()) else []

    video = maybe("template")
    for frame in range(draw(st.integers(1, max_frames))):
        video += run("frame", frame) + maybe("template")
    question = maybe("label") + run("stem") + maybe("label")
    n_options = draw(st.sampled_from([0, 2, 3]))
    for option in range(n_options):
        question += run("option", option) + maybe("template")
    parts = [video, question]
    if not usual and draw(st.integers(0, 5)) == 0:
        parts.reverse()
    system = maybe("system") if not usual else run("system")
    true_option = draw(st.integers(0, n_options - 1)) if n_options else None
    return Prompt((*system, *parts[0], *parts[1], *run("template"), ("last", 0)), true_option)


def layout_of(prompt: Prompt) -> TokenLayout:
    """The same prompt as the instrument sees it."""
    return TokenLayout.from_runs(
        [(Segment(kind, index), 1) for kind, index in prompt.positions],  # pyright: ignore[reportArgumentType]
        prompt.true_option,
    )


def spans(n_layers: int) -> st.SearchStrategy[tuple[int, int]]:
    ends = st.tuples(st.integers(1, n_layers), st.integers(1, n_layers))
    return ends.map(lambda ends: (min(ends), max(ends)))


def pathway_ranges(n_layers: int) -> st.SearchStrategy:
    return st.tuples(spans(n_layers), spans(n_layers), spans(n_layers))


def names_in(prompt: Prompt) -> list[str]:
    """Everything that a route may say about this prompt."""
    known = [
        "all",
        "system",
        "video",
        "question",
        "stem",
        "options",
        "true_option",
        "false_options",
    ]
    known += ["template", "last"]
    known += sorted({f"{kind}[{i}]" for kind, i in prompt.positions if kind in ("frame", "option")})
    return [name for name in known if prompt.all_called(name)]


def routes(prompt: Prompt, n_layers: int) -> st.SearchStrategy[Term]:
    """Routes and knockouts."""
    name = st.sampled_from(names_in(prompt))
    edges = st.one_of(
        st.just(Term("route", "cross-frame", "cross-frame")),
        st.builds(Term, st.just("route"), name, name),
    )
    windows = st.tuples(
        st.sampled_from(STYLES), st.integers(1, n_layers), st.integers(1, n_layers + 3)
    )
    return st.one_of(
        st.builds(replace, edges, layers=st.none() | spans(n_layers)),
        st.builds(replace, edges, kind=st.just("knockout"), window=windows),
    )


def policies(prompt: Prompt, n_layers: int) -> st.SearchStrategy[Term]:
    """Routes, knockouts and both effective policies: everything that segments can express."""
    effective = st.builds(
        Term,
        st.sampled_from(
            ["effective"] * (1 + bool(prompt.all_called("template"))) + ["effective-strict"]
        ),
        ranges=st.none() | pathway_ranges(n_layers),
    )
    return st.one_of(routes(prompt, n_layers), routes(prompt, n_layers), effective)


def random_terms() -> st.SearchStrategy[Term]:
    return st.builds(
        Term,
        st.just("random"),
        ratio=st.none() | st.floats(0, 1),
        seed=st.integers(0, 2**63 - 1) | st.integers(0, 9),
    )


@st.composite
def specs(draw, prompt: Prompt, n_layers: int, random: bool = False) -> Spec:
    """full, one to three policies, or `keep` with routes; with `random` maybe a random policy on
    top.
    """
    default = draw(pathway_ranges(n_layers))
    if draw(st.integers(0, 3)) == 0:
        kept = draw(st.lists(routes(prompt, n_layers), min_size=1, max_size=4))
        return Spec(tuple(kept), keep=True, default_ranges=default)
    terms = draw(st.lists(policies(prompt, n_layers), max_size=3))
    if random and draw(st.booleans()):
        terms.insert(draw(st.integers(0, len(terms))), draw(random_terms()))
    return Spec(tuple(terms), default_ranges=default)


def as_ranges(ranges: tuple[tuple[int, int], ...]) -> PathwayRanges:
    return PathwayRanges(*(LayerSpan(first, last) for first, last in ranges))


def compile_spec(prompt: Prompt, spec: Spec, n_layers: int, key: str = "") -> Compiled:
    """Through the text that a user would type."""
    return parse_intervention(str(spec)).compile(
        layout_of(prompt), n_layers, as_ranges(spec.default_ranges), key
    )


@st.composite
def cases(draw, random: bool = False, max_layers: int = 5, **kinds) -> tuple[Prompt, Spec, int]:
    """A prompt, an intervention on it and a depth."""
    prompt, n_layers = draw(prompts(**kinds)), draw(st.integers(1, max_layers))
    return prompt, draw(specs(prompt, n_layers, random)), n_layers

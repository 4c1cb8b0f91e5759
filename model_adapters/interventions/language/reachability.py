"""The reachability certificate: the paths by which one segment can still influence another.

Information moves along kept edges and, through the residual stream, stays where it is. Over *runs*
(contiguous stretches of a segment) this is exact: a later run attends to all of an earlier one or
to none of it. The certificate names the open paths with their layers, e.g. video -> template ->
last, which the paper's policy leaves open in every layer.

Random blocking is not defined over segments; a certificate covers the segment cuts only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, pairwise, permutations, product

import numpy as np
from jaxtyping import Bool, Int

from mapflow.model_adapters.interventions.language.intervention import Compiled
from mapflow.model_adapters.interventions.language.layout import SELECTORS

STATIONS = ("system", "video", "question", "template", "last")
RunAllowed = Bool[np.ndarray, "layer target source"]


@dataclass(frozen=True)
class OpenPath:
    """A path by which information can flow.

    `stations` are segment names in order of flow. `layers[i]` are the 1-based layers in which hop
    i can carry information that still arrives at the last station.
    """

    stations: tuple[str, ...]
    layers: tuple[tuple[int, ...], ...]

    def __str__(self) -> str:
        source, *between, target = self.stations
        via = f"via {' and '.join(between)}" if between else "directly"
        hops = ", ".join(
            f"{a}->{b} in layers {layer_ranges(layers)}"
            for (a, b), layers in zip(pairwise(self.stations), self.layers, strict=True)
        )
        return f"{source} reaches {target} {via}: {hops}"


def reachable(compiled: Compiled, source: str, target: str) -> bool:
    """Whether `source` before the first layer can influence `target` after the last one."""
    allowed, segment = _runs(compiled)
    informed = _forward(allowed, compiled.layout.select(source)[segment])[-1]
    return bool((informed & compiled.layout.select(target)[segment]).any())


def certificate(compiled: Compiled, source: str = "video", target: str = "last") -> list[OpenPath]:
    """Every open path from `source` to `target` (names of `STATIONS`), shortest first.

    No path visits a station twice. If all of those are closed, information may still pass a station
    twice (stem -> template -> options): then the result holds the shortest such
    paths. So the certificate is empty exactly if `reachable` is false, as stations tile the prompt.
    """
    allowed, segment = _runs(compiled)
    kinds = [compiled.layout.segments[s].kind for s in segment.tolist()]
    members = {name: np.array([kind in SELECTORS[name] for kind in kinds]) for name in STATIONS}
    between = [name for name in STATIONS if name not in (source, target) and members[name].any()]

    def open_paths(middles: Iterable[tuple[str, ...]]) -> list[OpenPath]:
        paths = (_open_path((source, *middle, target), members, allowed) for middle in middles)
        return [path for path in paths if path is not None]

    found = open_paths(
        chain.from_iterable(permutations(between, length) for length in range(len(between) + 1))
    )
    if not found and source != target and reachable(compiled, source, target):
        longer = (product(between, repeat=length) for length in range(3, len(allowed)))
        changing = (
            (m for m in middles if all(a != b for a, b in pairwise(m))) for middles in longer
        )
        found = next(filter(None, map(open_paths, changing)), [])
    return found


def layer_ranges(layers: tuple[int, ...]) -> str:
    """1, 2, 3, 7 as "1-3, 7"."""
    spans: list[tuple[int, int]] = []
    for layer in layers:
        if spans and layer == spans[-1][1] + 1:
            spans[-1] = (spans[-1][0], layer)
        else:
            spans.append((layer, layer))
    return ", ".join(f"{a}-{b}" if a != b else str(a) for a, b in spans)


def _runs(compiled: Compiled) -> tuple[RunAllowed, Int[np.ndarray, " run"]]:
    """`allowed` over runs, causal as no run attends to a later one, and each run's segment."""
    segment, _ = compiled.layout.runs
    return np.tril(compiled.allowed[:, segment][:, :, segment]), segment


def _forward(
    allowed: RunAllowed, source: Bool[np.ndarray, " run"]
) -> Bool[np.ndarray, "depth run"]:
    """Runs that hold information from the source: before the first layer, after it, … the last."""
    informed = [source]
    for layer in allowed:
        informed.append(informed[-1] | (layer & informed[-1]).any(-1))
    return np.stack(informed)


def _backward(
    allowed: RunAllowed, target: Bool[np.ndarray, " run"]
) -> Bool[np.ndarray, "depth run"]:
    """Runs that can still influence the target at each depth: `_forward` on reversed edges."""
    return _forward(allowed[::-1].transpose(0, 2, 1), target)[::-1]


def _open_path(
    names: tuple[str, ...], members: dict[str, Bool[np.ndarray, " run"]], allowed: RunAllowed
) -> OpenPath | None:
    """The path through exactly these stations: edges within a station and from each to the next, no
    others.
    """
    along = np.zeros_like(allowed[0])
    for a, b in pairwise(names):
        along |= members[b][:, None] & members[a][None]
    for name in names:
        along |= members[name][:, None] & members[name][None]
    walk = allowed & along
    informed, useful = _forward(walk, members[names[0]]), _backward(walk, members[names[-1]])
    carries = walk & informed[:-1, None, :] & useful[1:, :, None]
    layers = tuple(
        tuple((np.flatnonzero(carries[:, members[b]][:, :, members[a]].any((1, 2))) + 1).tolist())
        for a, b in pairwise(names)
    )
    return OpenPath(names, layers) if all(layers) else None

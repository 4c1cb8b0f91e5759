"""Policy diagrams and reachability certificates of a run's interventions, from its records alone.

Which segment may read which does not depend on how long segments are, only on their order; so an example prompt of the
paper's order with the run's own number of frames and layers shows exactly what the run's prompts saw. Depth follows
from the records: edges_total = layers × n(n + 1)/2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mapflow.harness.commands.explain import example_layout
from mapflow.model_adapters.interventions import (
    Compiled,
    Intervention,
    PathwayRanges,
    certificate,
    parse_intervention,
)
from mapflow.model_adapters.interventions.language.layout import SELECTORS
from mapflow.model_adapters.interventions.language.policies import Effective
from mapflow.model_adapters.interventions.language.segment_masks import causal_pairs
from mapflow.results.contract.errors import MapflowError
from mapflow.results.figures import PolicyDiagram
from mapflow.results.records.record import Record

FLOWS = (
    ("frame", "same frame"),
    ("frame", "earlier frames"),
    ("question", "video"),
    ("question", "question"),
    ("template", "video"),
    ("template", "question"),
    ("last", "video"),
    ("last", "question"),
    ("last", "template"),
    ("last", "last"),
)


def policy_diagrams(manifest: Mapping[str, Any], example: Record | None) -> list[PolicyDiagram]:
    """One diagram an intervention of the manifest. `example` is any answered record of the run that knows its edges;
    without one, expressions alone are shown."""
    expressions: Mapping[str, str] = manifest.get("interventions") or {}
    n_layers = depth(example) if example else None
    if n_layers is None or example is None:
        note = "The records do not say how many layers the model has, so nothing can be drawn."
        return [PolicyDiagram(name, text, note=note) for name, text in expressions.items()]
    per_segment = int(manifest.get("frames_per_segment") or 1)
    n_segments = max(1, len(example.frame_indices or ()) // per_segment)
    pathways = _ranges_in(expressions)
    return [
        _diagram(name, text, n_segments, n_layers, pathways) for name, text in expressions.items()
    ]


def depth(record: Record) -> int | None:
    """The model's number of layers; None where the record does not say."""
    if not record.edges_total or not record.n_tokens:
        return None
    layers, rest = divmod(record.edges_total, record.n_tokens * (record.n_tokens + 1) // 2)
    return layers if layers and not rest else None


def _ranges_in(expressions: Mapping[str, str]) -> PathwayRanges | None:
    """The model's own ranges, which the manifest spells out wherever `effective` was run."""
    for text in expressions.values():
        try:
            policies = parse_intervention(text).policies
        except MapflowError:
            continue  # its own diagram says why
        for policy in policies:
            if isinstance(policy, Effective) and policy.ranges:
                return policy.ranges
    return None


def _diagram(
    name: str, expression: str, frames: int, n_layers: int, pathways: PathwayRanges | None
) -> PolicyDiagram:
    try:
        return diagram(name, parse_intervention(expression), expression, frames, n_layers, pathways)
    except MapflowError as error:
        return PolicyDiagram(name, expression, note=f"Not drawn: {error}")


def diagram(
    name: str,
    intervention: Intervention,
    expression: str,
    frames: int,
    n_layers: int,
    pathways: PathwayRanges | None,
) -> PolicyDiagram:
    """What an intervention leaves open on a prompt of so many frames. Raises MapflowError where it fits no such model."""
    if intervention.random and len(intervention.policies) == 1:
        note = "Random blocking cuts single edges anywhere from the first frame on: no segment is closed to another."
        return PolicyDiagram(name, expression, note=note)
    compiled = intervention.compile(example_layout(frames, 1), n_layers, pathways, key="example")
    paths = [str(path) for path in certificate(compiled)]
    note = "" if paths else "Certificate: video cannot reach the last token."
    if intervention.random:
        note = f"{note} The segment cuts alone; random blocking cuts single edges besides.".strip()
    return PolicyDiagram(name, expression, _reads(compiled), paths, note)


def _reads(compiled: Compiled) -> list[tuple[str, str, tuple[float, ...]]]:
    """Every flow's share of open segment pairs, of those that causality allows."""
    segments = compiled.layout.segments
    causal = causal_pairs(compiled.layout.segment_of, len(segments)) > 0
    found = []
    for target, source in FLOWS:
        pairs = [
            (i, j)
            for i, reader in enumerate(segments)
            for j, read in enumerate(segments)
            if causal[i, j] and _is(target, reader.kind)
            if (
                read.kind == "frame" and (i == j) == (source == "same frame")
                if target == "frame"
                else _is(source, read.kind)
            )
        ]
        if pairs:
            rows, columns = map(list, zip(*pairs, strict=True))
            shares = compiled.allowed[:, rows, columns].double().mean(1)
            found.append((target, source, tuple(shares.tolist())))
    return found


def _is(name: str, kind: str) -> bool:
    return kind == name or kind in SELECTORS.get(name, ())

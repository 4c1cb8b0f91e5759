"""Policy diagrams and reachability certificates of a run's interventions, from its records.

Which segments may attend to which depends on their order, not on their lengths. So an example
prompt with the paper's order of segments and the run's number of frames shows the same as the
run's prompts. The model's depth follows from the records: edges_total = layers × n(n + 1)/2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mapflow.model_adapters.interventions import (
    Compiled,
    Intervention,
    PathwayRanges,
    certificate,
    parse_intervention,
)
from mapflow.model_adapters.interventions.language.layout import SELECTORS, example_layout
from mapflow.model_adapters.interventions.language.policies import Effective
from mapflow.model_adapters.interventions.language.segment_masks import causal_pairs
from mapflow.results.contract.errors import MapflowError
from mapflow.results.figures import PolicyDiagram
from mapflow.results.records.record import Record

# (target, source) in the rows of a diagram
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
    """One diagram per intervention of the manifest.

    example: any answered record with edge counts; without one, diagrams hold expressions only.
    """
    expressions: Mapping[str, str] = manifest.get("interventions") or {}
    n_layers = manifest.get("layers") or (depth(example) if example else None)
    if n_layers is None or example is None:
        note = "Not drawn: the records do not show how many layers the model has."
        return [PolicyDiagram(name, text, note=note) for name, text in expressions.items()]
    per_segment = int(manifest.get("frames_per_segment") or 1)
    n_segments = max(1, len(example.frame_indices or ()) // per_segment)
    pathways = _ranges_in(expressions)
    return [
        _diagram(name, text, n_segments, n_layers, pathways) for name, text in expressions.items()
    ]


def depth(record: Record) -> int | None:
    """The model's number of layers; None if the record does not show it."""
    if not record.edges_total or not record.n_tokens:
        return None
    layers, rest = divmod(record.edges_total, record.n_tokens * (record.n_tokens + 1) // 2)
    return layers if layers and not rest else None


def _ranges_in(expressions: Mapping[str, str]) -> PathwayRanges | None:
    """The model's layer ranges, which the manifest holds if `effective` was run."""
    for text in expressions.values():
        try:
            policies = parse_intervention(text).policies
        except MapflowError:
            continue  # the diagram of this intervention shows the error
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
    """The attention that an intervention allows on a prompt of `frames` frames.

    Raises MapflowError if the intervention does not fit a model of `n_layers` layers.
    """
    if intervention.random and len(intervention.policies) == 1:
        note = (
            "Random blocking cuts single edges anywhere from the first frame on,"
            " not attention between segments."
        )
        return PolicyDiagram(name, expression, note=note)
    compiled = intervention.compile(example_layout(frames, 1), n_layers, pathways, key="example")
    paths = [str(path) for path in certificate(compiled)]
    note = "" if paths else "Certificate: video cannot reach the last token."
    if intervention.random:
        note = f"{note} Segment cuts only; random blocking also cuts single edges.".strip()
    return PolicyDiagram(name, expression, _flows(compiled), paths, note)


def _flows(compiled: Compiled) -> list[tuple[str, str, tuple[float, ...]]]:
    """Of each flow, the share of causal segment pairs that may attend, by layer."""
    segments = compiled.layout.segments
    causal = causal_pairs(compiled.layout.segment_of, len(segments)) > 0
    found = []
    for target, source in FLOWS:
        pairs = [
            (i, j)
            for i, query in enumerate(segments)
            for j, key in enumerate(segments)
            if causal[i, j] and _is(target, query.kind)
            if (
                key.kind == "frame" and (i == j) == (source == "same frame")
                if target == "frame"
                else _is(source, key.kind)
            )
        ]
        if pairs:
            rows, columns = map(list, zip(*pairs, strict=True))
            shares = compiled.allowed[:, rows, columns].mean(1)
            found.append((target, source, tuple(shares.tolist())))
    return found


def _is(name: str, kind: str) -> bool:
    return kind == name or kind in SELECTORS.get(name, ())

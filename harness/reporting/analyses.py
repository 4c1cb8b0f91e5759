"""Sweeps, traces, lenses, attention maps and discoveries as sections of a report."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

from mapflow.harness.analyses.registry import (
    ANALYSES,
    DISCOVERED,
    DISCOVERY,
    OVERLAY_FOLDER,
    analyses_in,
    asked_names,
    question_analyses,
)
from mapflow.model_adapters.progress import Step, no_progress
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.files import read_checked
from mapflow.results.figures import CurveBlock, RoutePanel, route_panels
from mapflow.results.records.base import by_benchmark
from mapflow.results.records.sweep import SweepRecord
from mapflow.results.report import AnalysisFigure, AnalysisSection
from mapflow.results.runs.folder import reported_records
from mapflow.results.runs.manifest import read_manifest
from mapflow.results.runs.model_names import model_name
from mapflow.results.runs.provenance import manifest_lines
from mapflow.results.statistics import count, points
from mapflow.results.tables.formats import Column, Row, Table
from mapflow.results.tables.summary import percent
from mapflow.results.tables.sweeps import drop_text
from mapflow.tasks.registry import benchmark_titles

SWEEP = "sweep"
TITLES = {
    SWEEP: "Sweeps",
    "trace": "Traces",
    "lens": "Lenses",
    "attention": "Attention",
    DISCOVERY: "Discoveries",
}
SWEEPS_SHOW = (
    "Mean relative change in the probability of the baseline run's answer when a route is cut"
    " around each layer. Bands are simultaneous for all layers of a panel (95 %, max-T by video)"
    " and end at the edge of the panel. Dots mark layers with a significant change."
)
CURVES_SHOW = "Means over questions; bands are pointwise 95 % intervals by video."
OVERLAYS = 4
"""Drawings on frames that a report shows of a folder, at most."""
SETTINGS = ("style", "window", "norm", "released", "raw_embeddings", "topk", "rows", "samples")
"""Entries of a manifest's identity that a caption names."""


def analysis_sections(
    folders: Sequence[tuple[str, Path]], step: Step = no_progress
) -> Iterator[AnalysisSection]:
    """One section per kind of analysis, in the order of the registry.

    folders: (analysis, folder) pairs. step: told about every folder.

    Raises MapflowError, naming the folder, for a folder that holds nothing to draw.
    """
    for name in ANALYSES:
        own = [folder for kind, folder in folders if kind == name]
        if own:
            figures = []
            for folder in own:
                step(name, 0)
                figures += _figures(name, folder)
                step(name, 1)
            about = f"{ANALYSES[name].help[0].upper()}{ANALYSES[name].help[1:]}"
            about += "" if about.endswith("?") else "."
            shown = {SWEEP: SWEEPS_SHOW, DISCOVERY: ""}.get(name, CURVES_SHOW)
            yield AnalysisSection(
                name, TITLES.get(name, name), SWEEPS_SHOW if name == SWEEP else f"{about} {shown}",
                figures,
            )  # fmt: skip


def _figures(name: str, folder: Path) -> list[AnalysisFigure]:
    """One figure per benchmark; of a discovery, its table and those of its sweeps."""
    if name == DISCOVERY:
        return _discovery(folder)
    kind = question_analyses()[name]
    manifest = read_manifest(folder)
    identity = manifest.get("identity") or {}
    # what `mapflow trace` calls --norm is true or false in the manifest
    settings = ", ".join(
        f"{one} {_setting(identity[one])}" for one in SETTINGS if identity.get(one) is not None
    )
    model, titles = model_name(manifest, folder.name), benchmark_titles()
    caption = f"{model}: {settings}" if settings else model
    groups = by_benchmark(reported_records(folder, kind.RECORD))
    if not groups:
        raise MapflowError(f"{str(folder)!r} holds no records of a {name} yet")
    pictures, notes = _overlays(folder)
    figures = []
    for benchmark, records in groups.items():
        title = titles.get(benchmark, benchmark)
        try:
            if name == SWEEP:
                figure = _sweep([one for one in records if isinstance(one, SweepRecord)])
            else:
                blocks = kind.blocks(records, asked_names(folder))
                said = [] if blocks else [f"mapflow figure {folder.name} draws this analysis."]
                figure = AnalysisFigure("", blocks=blocks, tables=_numbers(blocks), notes=said)
        except MapflowError as error:
            raise MapflowError(f"{str(folder)!r}: {error}") from None
        figures.append(
            replace(
                figure,
                caption=f"{caption}, {title}",
                pictures=[] if figures else pictures,
                notes=[*figure.notes, *([] if figures else notes)],
                provenance=[(folder.name, "; ".join(manifest_lines(manifest)))],
            )
        )
    return figures


def _overlays(folder: Path) -> tuple[list[tuple[str, str]], list[str]]:
    """The first drawings on frames that an analysis left in its folder, and notes about the rest.

    As WebP, a drawing takes about 30 KiB.
    """
    from PIL import Image

    files = sorted((folder / OVERLAY_FOLDER).glob("*.png"))
    pictures, notes = [], []
    for file in files[:OVERLAYS]:
        data = io.BytesIO()
        try:
            with Image.open(file, formats=["PNG"]) as image:
                image.convert("RGB").save(data, "WEBP", quality=85)
        except (OSError, ValueError, KeyError, Image.DecompressionBombError) as error:
            notes.append(f"{file.name} cannot be shown: {error}.")
            continue
        encoded = base64.b64encode(data.getvalue()).decode("ascii")
        pictures.append((f"drawn on the frames: {file.stem}", f"data:image/webp;base64,{encoded}"))
    if len(files) > OVERLAYS:
        notes.append(
            f"{OVERLAYS} of {count(len(files), 'drawing')} on frames are shown; all are in"
            f" {folder.name}/{OVERLAY_FOLDER}."
        )
    return pictures, notes


def _setting(value: Any) -> str:
    return {True: "on", False: "off"}.get(value, str(value)) if isinstance(value, bool) else value


def _sweep(records: Sequence[SweepRecord]) -> AnalysisFigure:
    """The panels of a sweep; without any, a note says why."""
    routes = route_panels(records)
    notes = [f"{one.route}: no band: {one.note}." for one in routes if one.note]
    if not routes:
        notes = [
            "No route has a change to draw: every question was left out, failed or too improbable."
        ]
    return AnalysisFigure(
        "", routes=routes, tables=[_drop_table(routes)] if routes else [], notes=notes
    )


def _drop_table(curves: Sequence[RoutePanel]) -> Table:
    """Accuracy drops in points: one row per layer, one column per route."""
    heads = {one.route: f"{one.route} (n = {one.n_right})" for one in curves}
    cells = {one.route: [drop_text(drop) for drop in one.drops] for one in curves}
    title = (
        "Accuracy drop, in points with 95 % intervals by video, among the n questions that the"
        " baseline run answers right"
    )
    return _by_layer(title, heads, cells)


def _numbers(blocks: Sequence[CurveBlock]) -> list[Table]:
    """The curves of each panel in percent: one row per layer, one column per curve."""
    return [
        _by_layer(
            f"{panel.title}: {block.label}",
            {name: f"{name} (n = {curve.n})" for name, curve in panel.curves.items()},
            {
                name: [
                    percent(mean)
                    + (f" [{percent(curve.low[k])}, {percent(curve.high[k])}]" if curve.low else "")
                    for k, mean in enumerate(curve.mean)
                ]
                for name, curve in panel.curves.items()
            },
        )
        for block in blocks
        for panel in block.panels
    ]


def _by_layer(title: str, heads: dict[str, str], cells: dict[str, list[str]]) -> Table:
    depth = max(map(len, cells.values()), default=0)
    rows = [
        {
            "layer": str(layer + 1),
            **{name: own[layer] for name, own in cells.items() if layer < len(own)},
        }
        for layer in range(depth)
    ]
    columns = [
        Column(head, partial(_cell, name)) for name, head in {"layer": "layer", **heads}.items()
    ]
    return Table(title, columns, rows)


def _cell(name: str, row: Row) -> str:
    """Of one row and column; a dash where it is not known."""
    return "–" if row.get(name) is None else str(row[name])


class _Rule(TypedDict, total=False):
    """A rule with its ranges, as `mapflow discover` writes them."""

    rule: str
    threshold: float
    ranges: dict[str, str | None] | None
    difference: tuple[float, float, float] | None
    accuracy_full: float | None
    accuracy_effective: float | None
    verdict: str | None
    edges_kept: float | None


class _DiscoveryParts(TypedDict, total=False):
    model: str
    questions: int
    questions_asked: int
    samples: str


class _Discovery(_DiscoveryParts):
    found: list[_Rule]


def _discovery(folder: Path) -> list[AnalysisFigure]:
    """The rules with their ranges and scores, then the sweeps that they read.

    Raises MapflowError for a file that is not the result of a discovery.
    """
    found: _Discovery = read_checked(folder / DISCOVERED, _Discovery)
    rows = [_rule(one) for one in found["found"]]
    heads = list(dict.fromkeys(name for row in rows for name in row))
    columns = [
        Column(head, partial(_cell, head), right=head not in ("rule", "verdict")) for head in heads
    ]
    note = (
        f"Ranges are found on {found.get('questions')} of {found.get('questions_asked')} questions"
        f" ({found.get('samples')}); every question is scored under ranges that it did not help to"
        " choose."
    )
    table = Table("Layer ranges by rule and threshold", columns, rows)
    sweeps = [place for place in sorted(folder.glob("sweep-*")) if SWEEP in analyses_in(place)]
    return [
        AnalysisFigure(f"{found.get('model')}: layer ranges found", tables=[table], notes=[note]),
        *(figure for place in sweeps for figure in _figures(SWEEP, place)),
    ]


def _rule(one: _Rule) -> Row:
    """A row of the table; values that the file lacks are left out."""
    difference = one.get("difference")
    return {
        "rule": one.get("rule"),
        "below": f"{one['threshold']:g} %" if "threshold" in one else None,
        **{name.replace("_", " "): span for name, span in (one.get("ranges") or {}).items()},
        "full": percent(one.get("accuracy_full")),
        "effective": percent(one.get("accuracy_effective")),
        "difference": difference and points(difference[0]),
        "95 % CI": difference and f"{points(difference[1])}…{points(difference[2])}",
        "verdict": one.get("verdict"),
        "edges %": percent(one.get("edges_kept")),
    }

"""`mapflow explain`: what an intervention does, without loading a model.

Prints the edges that it keeps on a prompt of the paper's shape, and the reachability certificate:
the paths and layers by which video can still reach the answer. With --figure it draws which segment
attends to which, and the masks.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tabulate import tabulate

from mapflow.harness.cli.arguments import at_least
from mapflow.model_adapters.progress import steps
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.visible_text import counted

if TYPE_CHECKING:
    from mapflow.model_adapters.interventions import Compiled, Intervention, PathwayRanges


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("intervention", help="one or more, e.g. effective,effective-strict")
    parser.add_argument("--layers", type=at_least(1), default=32, help="of the model (default: 32)")
    parser.add_argument("--frames", type=at_least(1), default=8, help="of the prompt (default: 8)")
    parser.add_argument("--tokens-per-frame", type=at_least(1), default=144, help="default: 144")
    parser.add_argument(
        "--pathways",
        default="LLaVA-NeXT-7B-Video-FT",
        help="checkpoint folder or published model with the layer ranges of `effective` (default:"
        " %(default)s)",
    )
    parser.add_argument(
        "--figure",
        type=Path,
        metavar="FILE",
        help="draw which segment attends to which (FILE), masks (FILE-edges) and edges kept by"
        " layer (FILE-kept), each as .png, .svg and .csv",
    )
    parser.add_argument(
        "--map-layers",
        metavar="L,L",
        help="layers whose masks --figure draws, e.g. 1,10 (default: where the mask changes, four"
        " at most)",
    )


def run(options: argparse.Namespace) -> int:
    from mapflow.model_adapters.checkpoints.pathways import named_pathways, scaled_pathways
    from mapflow.model_adapters.interventions import parse_interventions
    from mapflow.model_adapters.interventions.language.layout import example_layout
    from mapflow.results.contract.files import check_figure

    if options.figure:
        check_figure(options.figure)
    layers = _layers(options)
    layout = example_layout(options.frames, options.tokens_per_frame)
    pathways = named_pathways(options.pathways)
    asked = parse_interventions([options.intervention])
    drawn = []
    for typed in asked:
        with steps(f"explaining {typed}"):
            intervention = typed.resolve(scaled_pathways, options.layers)
            compiled = intervention.compile(layout, options.layers, pathways, key="example")
            drawn.append((intervention, compiled))
            said = _explained(intervention, compiled, pathways)
        print(said, end="\n\n")
    if options.figure:
        _draw(options.figure, drawn, layers, options.frames, options.layers, pathways)
    return 0


def _explained(intervention: Intervention, compiled: Compiled, pathways: PathwayRanges) -> str:
    """Edges kept, work skipped, and the paths by which video can reach the answer."""
    from mapflow.model_adapters.interventions import certificate

    whole = f"{counted(len(compiled.layout), 'position')} × {counted(compiled.n_layers, 'layer')}"
    share = f"({compiled.edges_kept / compiled.edges_total:.1%})"
    rows = [
        ["prompt", whole],
        ["edges kept", f"{compiled.edges_kept:,} of {compiled.edges_total:,} {share}"],
        *_row_layers(compiled),
        *_keys_kept(compiled),
    ]
    if compiled.n_empty_rows:
        rows.append(["empty rows", f"{compiled.n_empty_rows:,} (they attend to nothing)"])
    lines = [intervention.describe(pathways), tabulate(rows, tablefmt="plain")]
    lines += [f"  {path}" for path in certificate(compiled)] or ["  video cannot reach last"]
    if intervention.random:
        lines.append("  (paths of the segment cuts alone: random blocking has none)")
    return "\n".join(lines)


def _row_layers(compiled: Compiled) -> list[list[str]]:
    """Skipped work: layers after an early exit, positions that no answer depends on."""
    from mapflow.model_adapters.interventions.execution.answers import skips_positions
    from mapflow.model_adapters.interventions.language.liveness import live_row_layers

    whole = len(compiled.layout) * compiled.n_layers
    if compiled.depth < compiled.n_layers:
        run, why = compiled.row_layers, f"layers after {compiled.depth} do not run"
    elif skips_positions([compiled]):
        run, why = (
            live_row_layers(compiled),
            "no answer depends on the others, so they are not computed",
        )
    else:
        return []
    return [["row-layers", f"{run:,} of {whole:,} ({run / whole:.1%}): {why}"]]


def _keys_kept(compiled: Compiled) -> list[list[str]]:
    """Keys kept in the cache of a written answer; empty for random blocking."""
    from mapflow.model_adapters.interventions.execution.kept_keys import keys_kept

    if compiled.random:
        return []
    kept, whole = keys_kept([compiled])
    if kept == whole:
        return []
    return [["keys kept", f"{kept:,} of {whole:,} ({kept / whole:.1%}): decoding reads no others"]]


def _layers(options: argparse.Namespace) -> list[int]:
    """Raises MapflowError for layers that the model does not have."""
    if options.map_layers is None:
        return []
    if not options.figure:
        raise MapflowError("--map-layers is for --figure FILE, which is not given")
    words = options.map_layers.split(",")
    if not all(word.isdecimal() and 1 <= int(word) <= options.layers for word in words):
        raise MapflowError(
            f"--map-layers {options.map_layers!r} must be layers from 1 to {options.layers}, e.g."
            " 1,10"
        )
    return sorted({int(word) for word in words})


def _draw(
    file: Path,
    drawn: Sequence[tuple[Intervention, Compiled]],
    layers: Sequence[int],
    frames: int,
    n_layers: int,
    pathways: PathwayRanges,
) -> None:
    from mapflow.harness.reporting.edge_maps import compiled_edge_map
    from mapflow.harness.reporting.policies import diagram
    from mapflow.results.figures import (
        edge_map,
        edge_rows,
        kept_edges,
        kept_rows,
        policy_diagram,
        policy_rows,
        save_figure,
    )
    from mapflow.results.figures.saving import figure_stem

    stem = figure_stem(file)
    policies = [
        diagram(str(one), one, one.describe(pathways), frames, n_layers, pathways)
        for one, _ in drawn
    ]
    maps = [compiled_edge_map(str(one), compiled, layers) for one, compiled in drawn]
    figures = [
        (stem.with_name(f"{stem.name}-edges"), edge_map(maps), edge_rows(maps)),
        (stem.with_name(f"{stem.name}-kept"), kept_edges(maps), kept_rows(maps)),
    ]
    if any(policy.flows for policy in policies):
        figures.insert(0, (stem, policy_diagram(policies), policy_rows(policies)))
    for policy in policies:
        if not policy.flows:
            print(f"{policy.name}: not in the policy diagram: {policy.note}")
    for path, figure, rows in figures:
        print(f"written: {', '.join(map(str, save_figure(figure, path, rows)))}")

"""`mapflow explain`: what an intervention does, without loading a model.

Prints the edges that it keeps on a prompt of the paper's shape and the reachability certificate: by which paths, in
which layers, video can still reach the answer.
"""

from __future__ import annotations

import argparse

from tabulate import tabulate

from mapflow.results.errors import MapflowError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("intervention", help="one or more, e.g. effective,effective-strict")
    parser.add_argument("--layers", type=int, default=32, help="depth of the model (default: 32)")
    parser.add_argument("--frames", type=int, default=8, help="frames of the prompt (default: 8)")
    parser.add_argument("--tokens-per-frame", type=int, default=144, help="default: 144")
    parser.add_argument(
        "--pathways",
        default="LLaVA-NeXT-7B-Video-FT",
        help="checkpoint folder or published model whose layer ranges `effective` uses (default: %(default)s)",
    )


def run(options: argparse.Namespace) -> int:
    from mapflow.model_adapters.checkpoint_pathways import named_pathways, scaled_pathways
    from mapflow.model_adapters.interventions import certificate, parse_interventions

    layout = example_layout(options.frames, options.tokens_per_frame)
    pathways = named_pathways(options.pathways)
    for typed in parse_interventions([options.intervention]):
        intervention = typed.resolve(scaled_pathways, options.layers)
        compiled = intervention.compile(layout, options.layers, pathways, key="example")
        print(intervention.describe(pathways))
        rows = [
            ["prompt", f"{len(layout):,} positions × {options.layers} layers"],
            [
                "edges kept",
                f"{compiled.edges_kept:,} of {compiled.edges_total:,} ({compiled.edges_kept / compiled.edges_total:.1%})",
            ],
            *(
                [
                    "row-layers",
                    f"{compiled.row_layers:,} of {n_all:,} ({compiled.row_layers / n_all:.1%}): layers after"
                    f" {compiled.depth} do not run",
                ]
                for n_all in [len(layout) * options.layers]
                if compiled.row_layers < n_all
            ),
            *(
                ["empty rows", f"{compiled.n_empty_rows:,} (they attend to nothing)"]
                for _ in range(compiled.n_empty_rows > 0)
            ),
        ]
        print(tabulate(rows, tablefmt="plain"))
        paths = certificate(compiled)
        print("\n".join(f"  {path}" for path in paths) if paths else "  video cannot reach last")
        if intervention.random:
            print("  (paths of the segment cuts alone: random blocking has none)")
        print()
    return 0


def example_layout(frames: int, tokens_per_frame: int):
    """A prompt of the paper's protocol: 45 system tokens, a four-way question of 60, a template of 19, the last token."""
    from mapflow.model_adapters.interventions import Segment, TokenLayout

    if min(frames, tokens_per_frame) < 1:
        raise MapflowError(f"a prompt of {frames} frames with {tokens_per_frame} tokens each shows no video")
    options = [run for i in range(4) for run in ((Segment("option", i), 9), (Segment("label"), 1))]
    runs = [
        (Segment("system"), 45),
        *((Segment("frame", i), tokens_per_frame) for i in range(frames)),
        (Segment("template"), 4),
        (Segment("label"), 2),
        (Segment("stem"), 16),
        (Segment("label"), 3),
        *options[:-1],
        (Segment("template"), 15),
        (Segment("last"), 1),
    ]
    return TokenLayout.from_runs(runs, true_option=0)

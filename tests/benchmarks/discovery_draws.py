"""Distance of the marginal rule's ranges from the planted layers, and its spread over clips.

    mapflow discover --bin 1 --window 1 --output_path FOUND            # all clips of the bundled
    model python -m tests.benchmarks.discovery_draws FOUND

Random draws of that sweep's questions simulate smaller sweeps. Other thresholds are shown beside
the default one, because the default was chosen on this model and its result is not an independent
test.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
from tabulate import tabulate

from mapflow.harness.analyses.discovery.rules import PATHWAYS, STYLES, Sweeps, discover
from mapflow.model_adapters.checkpoints.pathways import checkpoint_pathways
from mapflow.model_adapters.families.registry import BUNDLED
from mapflow.model_adapters.interventions import LayerSpan, PathwayRanges
from mapflow.results.records.sweep import SweepRecord
from mapflow.results.runs.folder import read_records


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folder", type=Path, metavar="FOUND", help="output folder of `mapflow discover`"
    )
    parser.add_argument("--questions", type=int, nargs="+", default=[50, 160], help="per draw")
    parser.add_argument("--thresholds", type=float, nargs="+", default=[-2, -5, -10, -15, -25])
    parser.add_argument("--bin", type=int, default=1)
    parser.add_argument("--draws", type=int, default=200)
    options = parser.parse_args()
    planted = checkpoint_pathways(BUNDLED)
    if planted is None:
        parser.error(f"{BUNDLED} has no planted pathways")
    sweeps = {
        style: read_records(options.folder / f"sweep-{style}", SweepRecord) for style in STYLES
    }
    ids = sorted({record.question_id for record in sweeps["top-down"]})
    rows = []
    for threshold in options.thresholds:
        spans = found(sweeps, ids, threshold, options.bin)
        rows.append(
            [threshold, len(ids), *map(str, spans.values()), layers_off(spans, planted), ""]
        )
        for size in options.questions:
            rng = np.random.default_rng(0)
            drawn = [rng.choice(ids, size, replace=False) for _ in range(options.draws)]
            off = np.array(
                [layers_off(found(sweeps, d, threshold, options.bin), planted) for d in drawn]
            )
            rows.append(
                [threshold, size, "", "", "", float(np.median(off)), f"{(off <= 1).mean():.1%}"]
            )
    heads = ["below", "questions", *PATHWAYS, "layers off (median)", "draws within one layer"]
    print(f"planted: {planted}\n" + tabulate(rows, heads, disable_numparse=True))


def found(
    sweeps: Sweeps, questions: Collection[str], threshold: float, bin_size: int
) -> Mapping[str, LayerSpan | None]:
    """The ranges that the marginal rule finds on these questions."""
    chosen = set(questions)
    own: Sweeps = {
        style: [r for r in records if r.question_id in chosen] for style, records in sweeps.items()
    }
    return discover(own, "marginal", threshold, bin_size).spans


def layers_off(spans: Mapping[str, LayerSpan | None], planted: PathwayRanges) -> float:
    """Largest distance of a range's end from the planted one, in layers; infinite if not found."""
    worst = 0.0
    for name, span in spans.items():
        true = getattr(planted, name)
        worst = max(
            worst,
            float("inf")
            if span is None
            else max(abs(span.first - true.first), abs(span.last - true.last)),
        )
    return worst


if __name__ == "__main__":
    main()

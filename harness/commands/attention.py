"""`mapflow attention`: how much of their attention chosen rows pay to video, layer by layer, under any intervention.

mapflow attention --intervention "full,video->question@2-8" --rows question --limit 3 --overlay --output_path attention/
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mapflow.harness.cli import arguments as analysis_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    analysis_arguments.add_arguments(parser)
    parser.add_argument(
        "--rows",
        default="last",
        metavar="SEGMENT",
        help="which positions read: last, question, true_option, frame[3] … (default: %(default)s)",
    )
    analysis_arguments.add_overlay(
        parser,
        "also draw each question's frames with the weights on them, averaged over LAYERS (default: all)",
    )


def run(options: argparse.Namespace) -> int:
    """Exit code: 0 done, 2 wrong usage, 3 some questions could not be asked."""
    from mapflow.harness.analyses.attention import check_rows

    rows = check_rows(options.rows)
    interventions = analysis_arguments.chosen_interventions(options)
    documents = analysis_arguments.chosen_documents(options)
    model = analysis_arguments.chosen_model(options)
    layers = analysis_arguments.overlay_layers(options, model, f"1-{model.decoder.n_layers}")

    from mapflow.harness.analyses.attention import AttentionMaps, failed, map_question
    from mapflow.harness.analyses.overlays import draw_attention
    from mapflow.harness.analyses.run import Analysis, described, run_analysis
    from mapflow.harness.analyses.shard import Shard
    from mapflow.results.contract.errors import QUESTIONS_MISSING
    from mapflow.results.records.attention import (
        AttentionRecord,
        attention_table,
        summarize_attention,
    )
    from mapflow.results.runs.folder import SUMMARY, write_json

    maps = AttentionMaps(analysis_arguments.fitted(interventions, model), rows)
    names = [str(one) for one in maps.interventions]
    analysis = Analysis(
        AttentionRecord,
        [str(one) for one in maps.interventions],
        {"rows": rows},
        lambda prepared: map_question(model, prepared, maps),
        lambda question, reason: failed(question, maps, reason),
        described(maps.interventions, model),
    )
    folder = Path(options.output_path)
    records = run_analysis(
        analysis,
        options.model,
        model,
        documents,
        options.protocol,
        folder,
        Shard.from_environment(),
    )
    if records is None:
        return 0  # the last process to finish writes the summary
    summaries = [summarize_attention(records, name) for name in names]
    write_json(folder / SUMMARY, {one.intervention: one.to_json() for one in summaries})
    print(attention_table(summaries))
    print(
        f"\nmean share of {rows}'s attention that goes to video, in percent; records and summary: {folder}"
    )
    if layers is not None:
        draw_attention(model, documents, records, names, layers, folder)
    return QUESTIONS_MISSING if any(one.errors for one in summaries) else 0

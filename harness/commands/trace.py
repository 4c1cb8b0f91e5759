"""`mapflow trace`: how probable the right and the wrong answers are after every layer.

mapflow trace --intervention full,effective --output_path trace/
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mapflow.harness.cli import arguments as analysis_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    analysis_arguments.add_arguments(parser)
    parser.add_argument(
        "--norm",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="read every layer through the final norm, not the last one alone (default: --norm)",
    )
    parser.add_argument(
        "--released",
        action="store_true",
        help="options' tokens by the released code's rule: with or without a leading space, whichever id is nearer to the"
        " predicted one's (its published curves: --released --no-norm)",
    )


def run(options: argparse.Namespace) -> int:
    """Exit code: 0 done, 2 wrong usage, 3 some questions could not be asked."""
    interventions = analysis_arguments.chosen_interventions(options)
    documents = analysis_arguments.chosen_documents(options)
    model = analysis_arguments.chosen_model(options)

    from mapflow.harness.analyses.run import Analysis, described, run_analysis
    from mapflow.harness.analyses.shard import Shard
    from mapflow.harness.analyses.trace import Trace, failed, trace_question
    from mapflow.results.contract.errors import QUESTIONS_MISSING
    from mapflow.results.records.trace import TraceRecord, summarize_trace, trace_table
    from mapflow.results.runs.folder import SUMMARY, write_json

    trace = Trace(analysis_arguments.fitted(interventions, model), options.norm, options.released)
    analysis = Analysis(
        TraceRecord,
        [str(one) for one in trace.interventions],
        {"norm": options.norm, "released": options.released},
        lambda prepared: trace_question(model, prepared, trace),
        lambda question, reason: failed(question, trace, reason),
        described(trace.interventions, model),
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
    summaries = [summarize_trace(records, str(one)) for one in trace.interventions]
    write_json(folder / SUMMARY, {one.intervention: one.to_json() for one in summaries})
    print(trace_table(summaries))
    print(
        f"\nmean probability of the first answer token, in percent; records and summary: {folder}"
    )
    return QUESTIONS_MISSING if any(one.errors for one in summaries) else 0

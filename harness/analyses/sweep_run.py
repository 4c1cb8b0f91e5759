"""A sweep's run: an analysis with a record a question × route, whose complete folder gets a summary, a table and a verdict on
its audit.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from mapflow.harness.analyses.run import Analysis, run_analysis
from mapflow.harness.analyses.shard import Shard
from mapflow.harness.analyses.sweep import Sweep, failed, sweep_question
from mapflow.harness.analyses.sweep_audit import NOISE
from mapflow.model_adapters.inference.run_identity import run_identity
from mapflow.model_adapters.video_llm import Prepared, VideoLLM
from mapflow.results.contract.errors import FAILED, QUESTIONS_MISSING
from mapflow.results.records.sweep import SweepRecord
from mapflow.results.records.sweep_summary import summarize_sweep, sweep_table
from mapflow.results.runs.folder import SUMMARY, write_json
from mapflow.tasks.documents import Document


def run_sweep(
    model_name: str,
    model: VideoLLM,
    documents: Sequence[Document],
    sweep: Sweep,
    protocol: str,
    folder: Path,
    shard: Shard,
) -> int:
    """Exit code: 0, 1 where an audit failed, 3 where questions could not be asked. Raises MapflowError."""
    to_describe = shard.rank == 0

    def ask(prepared: Prepared) -> list[SweepRecord]:
        nonlocal to_describe
        if to_describe:
            to_describe = False
            tqdm.write(_describe(model, prepared, sweep), file=sys.stderr)
        return sweep_question(model, prepared, sweep)

    analysis = Analysis(
        SweepRecord,
        [str(route) for route in sweep.routes],
        {
            "style": sweep.style,
            "window": sweep.window,
            "samples": sweep.samples,
            "audit": sweep.audit,
        },
        ask,
        lambda question, reason: failed(question, sweep, reason),
    )
    records = run_analysis(analysis, model_name, model, documents, protocol, folder, shard)
    if records is None:
        return (
            0  # other processes still have questions to answer, and the last one will come by here
        )
    return _finish(
        folder, records, analysis.names, run_identity(model_name, model, protocol)["dtype"]
    )


def _describe(model: VideoLLM, prepared: Prepared, sweep: Sweep) -> str:
    """The first question's plan, and what it has to say about memory."""
    n_layers = model.decoder.n_layers
    (inputs,) = model.embed([prepared])
    planned = sweep.plan(model, sweep.compile(prepared.question, prepared, n_layers), inputs)
    first = f"plan: {len(sweep.routes)} routes × {n_layers} layers on {len(prepared.layout):,} positions: {planned}"
    return "\n".join([first, *(f"plan: {note}" for note in planned.notes)])


def _finish(folder: Path, records: Sequence[SweepRecord], routes: Sequence[str], dtype: str) -> int:
    """Summary and table of all questions' records, routes in the order in which they were asked for."""
    summaries = [one for one in summarize_sweep(records) if one.route in routes]
    summaries.sort(key=lambda one: routes.index(one.route))
    write_json(folder / SUMMARY, {one.route: one.to_json() for one in summaries})
    print(sweep_table(summaries))
    print(
        f"\nmean relative change of the plain run's answer, in percent; records and summary: {folder}"
    )
    differences = [one.audit_difference for one in summaries if one.audit_difference is not None]
    if differences:
        passed = max(differences) <= NOISE[dtype]
        print(
            f"audit: {sum(one.audited for one in summaries)} windows run again naively; largest difference"
            f" {max(differences):.1e}, {'within' if passed else 'BEYOND'} the noise of {dtype} ({NOISE[dtype]:.0e})"
        )
        if not passed:
            return FAILED
    return QUESTIONS_MISSING if any(one.errors for one in summaries) else 0

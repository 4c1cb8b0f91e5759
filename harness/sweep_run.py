"""A sweep's run: questions to records in a folder, over any number of processes, taken up again where it stopped.

Questions are dealt out by their ids (`shard.py`); nobody waits for anybody. Whoever finds the folder complete sorts it
and writes the summary.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tqdm import tqdm

from mapflow.harness.audit import NOISE
from mapflow.harness.shard import Shard
from mapflow.harness.sweep import Sweep, failed, sweep_question
from mapflow.model_adapters.memory_limit import unless_too_large
from mapflow.model_adapters.question_loading import load_ahead
from mapflow.model_adapters.run_identity import run_identity
from mapflow.model_adapters.video_llm import Prepared, VideoLLM
from mapflow.results.errors import MapflowError
from mapflow.results.run_claim import in_turn
from mapflow.results.run_folder import SUMMARY, RunFolder, read_records, sort_records, write_json
from mapflow.results.sweep_record import SweepRecord
from mapflow.results.sweep_summary import summarize_sweep, sweep_table
from mapflow.tasks.documents import Document, to_question
from mapflow.tasks.lmms_functions import question_of

AUDIT_FAILED, QUESTIONS_MISSING = 1, 3


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
    identity = {
        **run_identity(model_name, model, protocol),
        "style": sweep.style,
        "window": sweep.window,
        "samples": sweep.samples,
        "audit": sweep.audit,
    }
    about = {"device": str(model.decoder.device), "command": sys.orig_argv}
    run = RunFolder(folder, identity, about, SweepRecord)
    expected = [(doc["question_id"], str(route)) for doc in documents for route in sweep.routes]
    routes = [str(route) for route in sweep.routes]
    waiting = [
        doc
        for doc in shard.share(documents)
        if any((doc["question_id"], route) not in run.answered for route in routes)
    ]
    planned = False
    with tqdm(total=len(waiting), desc="questions", unit="q", disable=shard.rank != 0) as bar:
        for doc, prepared in load_ahead(model, waiting, question_of):
            if isinstance(prepared, Prepared):
                if shard.rank == 0 and not planned:
                    planned = True
                    bar.write(_describe(model, prepared, sweep), file=sys.stderr)
                records = unless_too_large(
                    model,
                    partial(sweep_question, model, prepared, sweep),
                    partial(failed, to_question(doc, protocol), sweep),
                )
            elif isinstance(prepared, MapflowError):
                records = failed(to_question(doc, protocol), sweep, str(prepared))
            else:
                raise prepared
            run.append(record for record in records if record.key not in run.answered)
            bar.update()
    return _finish(folder, expected, identity["dtype"])


def _describe(model: VideoLLM, prepared: Prepared, sweep: Sweep) -> str:
    """The first question's plan, and what it has to say about memory."""
    n_layers = model.decoder.n_layers
    (inputs,) = model.embed([prepared])
    planned = sweep.plan(model, sweep.compile(prepared.question, prepared, n_layers), inputs)
    first = f"plan: {len(sweep.routes)} routes × {n_layers} layers on {len(prepared.layout):,} positions: {planned}"
    return "\n".join([first, *(f"plan: {note}" for note in planned.notes)])


def _finish(folder: Path, expected: Sequence[tuple[str, str]], dtype: str) -> int:
    """Sorted records, summary and table, by whoever finds all questions answered."""
    with in_turn(folder):
        records = read_records(folder, SweepRecord)
        if not set(expected) <= {record.key for record in records}:
            return 0  # other processes still have questions to answer, and the last one will come by here
        sort_records(folder, SweepRecord)
        order = list(dict.fromkeys(route for _, route in expected))
        summaries = [one for one in summarize_sweep(records) if one.route in order]
        summaries.sort(key=lambda one: order.index(one.route))
        write_json(folder / SUMMARY, {one.route: one.to_json() for one in summaries})
    print(sweep_table(summaries))
    print(f"\nmean relative change of the plain run's answer, in percent; records and summary: {folder}")
    differences = [one.audit_difference for one in summaries if one.audit_difference is not None]
    if differences:
        passed = max(differences) <= NOISE[dtype]
        print(
            f"audit: {sum(one.audited for one in summaries)} windows run again naively; largest difference"
            f" {max(differences):.1e}, {'within' if passed else 'BEYOND'} the noise of {dtype} ({NOISE[dtype]:.0e})"
        )
        if not passed:
            return AUDIT_FAILED
    return QUESTIONS_MISSING if any(one.errors for one in summaries) else 0

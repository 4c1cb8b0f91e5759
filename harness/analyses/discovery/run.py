"""A discovery's run: sweep, choose ranges on one half of the videos, score them on the other, and the other way round.

What is swept and what is answered goes into ordinary folders (sweep-*/, scores/) and is taken up again, so another bin
size or threshold costs only the policies that are new. The ranges that are handed out are those of all questions; their
score is the cross-fitted one, in which no question helped to choose the policy it was answered under.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from mapflow.harness.analyses.discovery.rules import (
    PATHWAYS,
    RULES,
    STYLES,
    Found,
    Rule,
    Sweeps,
    discover,
    fold_of_videos,
)
from mapflow.harness.analyses.shard import Shard
from mapflow.harness.analyses.sweep import Sweep
from mapflow.harness.analyses.sweep_run import run_sweep
from mapflow.model_adapters.inference.answering import failed
from mapflow.model_adapters.inference.memory_limit import answer_within_memory
from mapflow.model_adapters.inference.question_loading import load_ahead
from mapflow.model_adapters.inference.run_identity import run_identity
from mapflow.model_adapters.interventions import Intervention, Route
from mapflow.model_adapters.interventions.language.policies import Effective
from mapflow.model_adapters.video_llm import Prepared, VideoLLM
from mapflow.results.contract.errors import QUESTIONS_MISSING, MapflowError
from mapflow.results.records.record import Record
from mapflow.results.records.sweep import SweepRecord
from mapflow.results.runs.folder import RunFolder, read_records
from mapflow.results.statistics import Comparison, RunOutcomes, compare_runs
from mapflow.tasks.documents import Document, to_question
from mapflow.tasks.lmms_functions import question_of


@dataclass(frozen=True)
class Discovery:
    """`window` layers of the `paper` and `confidence` rules' knockouts, `bin_size` layers a bin, `thresholds` in percent
    (the first is the one that counts, the others show how much depends on it), `margin` a fraction."""

    window: int
    bin_size: int
    thresholds: tuple[float, ...]
    margin: float
    memory_budget: int


@dataclass(frozen=True)
class Scored:
    """One rule at one threshold: found on all questions, found without fold 0 and without fold 1, and how these two did
    on the folds they had not seen. `comparison` with `full` and `edges` (share kept) are None where a half found no
    policy; `not_asked` counts questions that could not be answered."""

    found: Found
    without: tuple[Found, Found]
    comparison: Comparison | None
    edges: float | None
    not_asked: int = 0


def run_discovery(
    model_name: str,
    model: VideoLLM,
    documents: Sequence[Document],
    protocol: str,
    what: Discovery,
    folder: Path,
) -> tuple[list[Scored], int]:
    """Every rule at every threshold, rule by rule, and the exit code: 0, or 3 where questions could not be asked.

    Raises MapflowError, also for fewer than two videos a half.
    """
    sweeps, missing = _sweep(model_name, model, documents, protocol, what, folder)
    fold = fold_of_videos([record for records in sweeps.values() for record in records])
    halves: list[Sweeps] = [
        {style: [r for r in own if fold[r.video_id] != held_out] for style, own in sweeps.items()}
        for held_out in (0, 1)
    ]

    def find(data: Sweeps, rule: Rule, threshold: float) -> Found:
        return discover(data, rule, threshold, what.bin_size)

    plans = [
        (find(sweeps, rule, cut), (find(halves[0], rule, cut), find(halves[1], rule, cut)))
        for rule in RULES
        for cut in what.thresholds
    ]
    wanted = [
        [
            Intervention(),
            *dict.fromkeys(_policy(without[k]) for _, without in plans if without[k].ranges),
        ]
        for k in (0, 1)
    ]
    records = _answer(model_name, model, documents, protocol, fold, wanted, folder / "scores")
    scored = [
        _score(found, without, records, documents, fold, what.margin) for found, without in plans
    ]
    return scored, QUESTIONS_MISSING if missing or any(one.not_asked for one in scored) else 0


def _sweep(
    model_name: str,
    model: VideoLLM,
    documents: Sequence[Document],
    protocol: str,
    what: Discovery,
    folder: Path,
) -> tuple[Sweeps, bool]:
    routes = tuple(Route.parse(route) for route in PATHWAYS.values())
    asked = {doc["question_id"] for doc in documents}
    sweeps, missing = {}, False
    for style in STYLES:
        place = folder / f"sweep-{style}"
        print(f"\n{style} windows")
        sweep = Sweep(routes, style, what.window, memory_budget=what.memory_budget)
        missing |= run_sweep(model_name, model, documents, sweep, protocol, place, Shard(0, 1)) != 0
        sweeps[style] = [r for r in read_records(place, SweepRecord) if r.question_id in asked]
    return sweeps, missing


def _policy(found: Found) -> Intervention:
    return Intervention((Effective(found.ranges),))


def _answer(
    model_name: str,
    model: VideoLLM,
    documents: Sequence[Document],
    protocol: str,
    fold: Mapping[str, int],
    wanted: Sequence[Sequence[Intervention]],
    folder: Path,
) -> dict[tuple[str, str], Record]:
    """Every question under the interventions wanted for its fold; what earlier runs answered is not asked again."""
    names = {str(one): str(one) for interventions in wanted for one in interventions}
    about = {"device": str(model.decoder.device), "command": sys.orig_argv, "interventions": names}
    run = RunFolder(folder, run_identity(model_name, model, protocol), about)

    def missing(doc: Document) -> list[Intervention]:
        return [
            i
            for i in wanted[fold[to_question(doc, protocol).video_id]]
            if (doc["question_id"], str(i)) not in run.answered
        ]

    waiting = [doc for doc in documents if missing(doc)]
    with (
        tqdm(total=len(waiting), desc="held-out questions", unit="q") as bar,
        torch.inference_mode(),
    ):
        for doc, prepared in load_ahead(model, waiting, question_of):
            if isinstance(prepared, Prepared):
                run.append(answer_within_memory(model, [prepared], missing(doc))[0])
            elif isinstance(prepared, MapflowError):
                run.append(
                    [failed(to_question(doc, protocol), i, str(prepared)) for i in missing(doc)]
                )
            else:
                raise prepared
            bar.update()
    return {record.key: record for record in read_records(folder)}


def _score(
    found: Found,
    without: tuple[Found, Found],
    records: Mapping[tuple[str, str], Record],
    documents: Sequence[Document],
    fold: Mapping[str, int],
    margin: float,
) -> Scored:
    if any(one.ranges is None for one in without):
        return Scored(found, without, None, None)
    names = [str(_policy(one)) for one in without]
    plain = [records[doc["question_id"], str(Intervention())] for doc in documents]
    cut = [records[record.question_id, names[fold[record.video_id]]] for record in plain]
    asked = [
        (a, b)
        for a, b in zip(plain, cut, strict=True)
        if a.correct is not None and b.correct is not None
    ]
    comparison = compare_runs(
        _outcomes("full", [a for a, _ in asked]),
        _outcomes(f"{found.rule} ({found.threshold:g} %)", [b for _, b in asked]),
        margin=margin,
    )
    kept, total = (
        sum(getattr(b, name) for _, b in asked) for name in ("edges_kept", "edges_total")
    )
    return Scored(found, without, comparison, kept / total, len(plain) - len(asked))


def _outcomes(name: str, records: Sequence[Record]) -> RunOutcomes:
    return RunOutcomes(
        name,
        [r.question_id for r in records],
        [r.correct for r in records],
        [r.video_id for r in records],
    )

"""Discovery: sweeps, chooses layer ranges on half of the videos, scores them on the other half.

Sweeps and answers go into ordinary run folders (sweep-*/, scores/), so another bin size or
threshold asks only the policies that are new. The ranges written are those of all questions. Their
score is cross-fitted: every question is answered under a policy that it did not help to choose.

    mapflow discover --task mapflow_tvbench_action_antonym --pretrained DIR --output_path found/
    mapflow discover --bin 1 --window 1 --output_path found/     # shallow models: layer by layer
    lmms_eval … --intervention found/discovered.yaml
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mapflow.harness.analyses.analysis import Analysis
from mapflow.harness.analyses.discovery.team import OthersEnded, Team
from mapflow.harness.analyses.sweep import Sweep
from mapflow.harness.cli.arguments import (
    add_margin,
    add_memory_budget,
    add_output_path,
    add_samples,
    add_subject_arguments,
    chosen_margin,
    chosen_memory_budget,
)
from mapflow.results.contract.errors import FAILED, QUESTIONS_MISSING, MapflowError
from mapflow.results.contract.question import Question
from mapflow.results.records.base import benchmark_of
from mapflow.results.records.record import Record
from mapflow.results.records.sweep import SweepRecord

if TYPE_CHECKING:
    from mapflow.harness.analyses.discovery.output import Sample, Scored
    from mapflow.harness.analyses.discovery.rules import Found, Rule, Sweeps
    from mapflow.harness.analyses.samples import Samples
    from mapflow.model_adapters.inference.subject import Subject
    from mapflow.model_adapters.interventions import Intervention
    from mapflow.model_adapters.interventions.language.layers import WindowStyle
    from mapflow.results.statistics import RunOutcomes

LOG = logging.getLogger(__name__)
SENSITIVITY = (-2.0, -5.0, -10.0)
"""Thresholds that are always shown, in percent."""


@dataclass(frozen=True)
class Discovery(Analysis):
    """Finds the layer ranges of the three effective pathways.

    Attributes:
        window: layers cut at once in the sweep of the `paper` and `confidence` rules.
        bin_size: layers per bin.
        threshold: mean relative change in percent below which a bin counts.
        margin: non-inferiority margin, as a fraction.
        memory_budget: as in `Sweep`.
        samples: the questions that ranges are found on, by the answer of the baseline run; scores
            are of all questions.
    """

    window: int = 9
    bin_size: int = 5
    threshold: float = -5.0
    margin: float = 0.02
    memory_budget: int | None = None
    samples: Samples = "correct"

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--bin", type=int, default=5, metavar="K", help="layers per bin (default: 5)"
        )
        parser.add_argument(
            "--window", type=int, default=9, metavar="K", help="layers cut at once (default: 9)"
        )
        parser.add_argument(
            "--threshold",
            type=float,
            default=-5.0,
            metavar="PERCENT",
            help="mean relative change below which a bin counts, for the marginal rule per five"
            " layers"
            " (default: -5; -2, -5 and -10 are shown beside it)",
        )
        add_samples(parser, "correct", ", as in the paper; scores are of all questions")
        add_margin(parser)
        add_subject_arguments(parser)
        add_memory_budget(parser)
        add_output_path(parser, "sweeps, scores, discovered.yaml, RULE/pathways.yaml")

    @classmethod
    def from_options(cls, options: argparse.Namespace) -> Discovery:
        for name in ("bin", "window"):
            value = getattr(options, name)
            if value < 1:
                raise MapflowError(f"--{name} {value} must be at least 1")
        if not -100 < options.threshold < 0:
            raise MapflowError(
                f"--threshold {options.threshold:g} must lie between -100 and 0 percent, e.g. -5"
            )
        return cls(
            options.window,
            options.bin,
            options.threshold,
            chosen_margin(options),
            chosen_memory_budget(options),
            options.samples,
        )

    def check(self, questions: Sequence[Question]) -> None:
        """Also refuses several benchmarks: their ranges, scores and verdicts are not one."""
        super().check(questions)
        benchmarks = dict.fromkeys(benchmark_of(one.question_id, one.task) for one in questions)
        if len(benchmarks) > 1:
            raise MapflowError(
                f"discover finds ranges on one benchmark, not on {' and '.join(benchmarks)}"
                " together: run it once for each, with an --output_path of its own"
            )

    def run_folders(self, folder: Path) -> Sequence[tuple[Path, str, Mapping[str, Any]]]:
        from mapflow.harness.analyses.discovery.rules import STYLES

        sweeps = [self._one_sweep(style).run_folders(folder / f"sweep-{style}") for style in STYLES]
        return [*(one for own in sweeps for one in own), (folder / "scores", Record.FILE, {})]

    def run(self, subject: Subject, folder: Path) -> int:
        """Prints the table and writes the policies, the first of several processes does.

        Exit code: 0, 3 if questions failed, or 1 if another process ended before its share.
        """
        from mapflow.harness.analyses.discovery.output import describe, write_policies

        try:
            found = self.discover(subject, folder)
        except OthersEnded as ended:
            LOG.error(f"{ended}; what was written is kept, and the same command goes on from there")
            return FAILED
        if found is None:
            return 0
        scored, missing, sample = found
        print(describe(scored, sample))
        model = subject.model
        lines = write_policies(
            scored, sample, self.threshold, model.name, model.decoder.n_layers, folder
        )
        print("\n".join(lines))
        return QUESTIONS_MISSING if missing else 0

    def discover(self, subject: Subject, folder: Path) -> tuple[list[Scored], bool, Sample] | None:
        """Every rule at every threshold, rule by rule; whether questions failed; the questions that
        ranges were found on. None in all processes but the first.

        Raises MapflowError, also for fewer than two videos per half, and OthersEnded.
        """
        from mapflow.harness.analyses.discovery.output import Sample
        from mapflow.harness.analyses.discovery.rules import RULES, discover, fold_of_videos

        team = Team(folder)
        sweeps, missing = self._sweep(subject, folder, team)
        fold = fold_of_videos([record for records in sweeps.values() for record in records])
        halves: list[Sweeps] = [
            {
                style: [r for r in own if fold[r.video_id] != held_out]
                for style, own in sweeps.items()
            }
            for held_out in (0, 1)
        ]

        def find(data: Sweeps, rule: Rule, threshold: float) -> Found:
            return discover(data, rule, threshold, self.bin_size)

        plans = [
            (find(sweeps, rule, cut), (find(halves[0], rule, cut), find(halves[1], rule, cut)))
            for rule in RULES
            for cut in dict.fromkeys([self.threshold, *SENSITIVITY])
        ]
        policies = [
            list(dict.fromkeys(_policy(without[k]) for _, without in plans if without[k].ranges))
            for k in (0, 1)
        ]
        records = _answer(subject, fold, policies, folder / "scores", team)
        if records is None:
            return None
        scored = _judged(
            _score(found, without, records, subject.questions, fold, self.margin)
            for found, without in plans
        )
        sample = Sample.of(self.samples, [r for records in sweeps.values() for r in records])
        return scored, missing or any(one.not_asked for one in scored), sample

    def _sweep(self, subject: Subject, folder: Path, team: Team) -> tuple[Sweeps, bool]:
        """The sweeps that the rules read, by style; and whether questions failed."""
        from mapflow.harness.analyses.discovery.rules import STYLES
        from mapflow.results.runs.folder import read_records

        asked = {question.question_id for question in subject.questions}
        missing = False
        for style in STYLES:
            if team.is_first:
                print(f"\n{style} windows")
            place = folder / f"sweep-{style}"
            missing |= self._one_sweep(style).run(subject, place) != 0
        team.finish("sweeps", failed=missing)
        missing = team.wait("sweeps")
        sweeps: Sweeps = {}
        for style in STYLES:
            records = read_records(folder / f"sweep-{style}", SweepRecord)
            sweeps[style] = [one for one in records if one.question_id in asked]
        return sweeps, missing

    def _one_sweep(self, style: WindowStyle) -> Sweep:
        from mapflow.harness.analyses.discovery.rules import PATHWAYS
        from mapflow.model_adapters.interventions import Route

        routes = tuple(Route.parse(route) for route in PATHWAYS.values())
        return Sweep(routes, style, self.window, self.samples, memory_budget=self.memory_budget)


def _policy(found: Found) -> Intervention:
    from mapflow.model_adapters.interventions import Intervention
    from mapflow.model_adapters.interventions.language.policies import Effective

    return Intervention((Effective(found.ranges),))


def _answer(
    subject: Subject,
    fold: Mapping[str, int],
    policies: Sequence[Sequence[Intervention]],
    folder: Path,
    team: Team,
) -> dict[tuple[str, str], Record] | None:
    """Every question under `full` and the policies of its fold; asks only what the folder lacks.

    Each process answers its share; all but the first get None.
    """
    from mapflow.harness.analyses.run import Shard
    from mapflow.model_adapters.inference.run_loop import Answering, run_questions
    from mapflow.model_adapters.interventions import Intervention
    from mapflow.results.runs.folder import RunFolder, sort_records

    wanted = [[Intervention(), *own] for own in policies]
    names = {str(one): str(one) for interventions in wanted for one in interventions}
    device = str(subject.model.decoder.device)
    about = {"device": device, "command": sys.orig_argv, "interventions": names}
    run = RunFolder(folder, subject.identity, about)

    def missing(question: Question) -> list[Intervention]:
        own = wanted[fold[question.video_id]]
        return [one for one in own if (question.question_id, str(one)) not in run.answered]

    work = Answering(subject.model, missing)
    title = "held-out questions"
    mine = Shard.from_environment().share(subject.questions)
    deque(run_questions(work, mine, run, title=title, show=team.is_first), maxlen=0)
    team.finish("scores")
    if not team.is_first:
        return None
    team.wait("scores")
    team.end()
    return {record.key: record for record in sort_records(folder)}


def _score(
    found: Found,
    without: tuple[Found, Found],
    records: Mapping[tuple[str, str], Record],
    questions: Sequence[Question],
    fold: Mapping[str, int],
    margin: float,
) -> Scored:
    from mapflow.harness.analyses.discovery.output import Scored
    from mapflow.results.statistics import compare_runs

    if any(one.ranges is None for one in without):
        return Scored(found, without, None, None)
    names = [str(_policy(one)) for one in without]
    baseline = [records[question.question_id, "full"] for question in questions]
    cut = [records[record.question_id, names[fold[record.video_id]]] for record in baseline]
    asked = [
        (a, b)
        for a, b in zip(baseline, cut, strict=True)
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
    return Scored(found, without, comparison, kept / total, len(baseline) - len(asked))


def _judged(scored: Iterable[Scored]) -> list[Scored]:
    """Verdicts corrected for all distinct policies that are scored, as one family.

    Rules and thresholds that found the same ranges are one comparison.
    """
    from mapflow.results.statistics import judge_together

    scored = list(scored)
    policies = [
        tuple(map(str, map(_policy, one.without))) if one.comparison else None for one in scored
    ]
    distinct = {
        policy: one.comparison
        for policy, one in zip(policies, scored, strict=True)
        if policy and one.comparison
    }
    together = dict(zip(distinct, judge_together(list(distinct.values())), strict=True))
    return [
        one
        if policy is None or one.comparison is None
        else replace(one, comparison=replace(together[policy], treatment=one.comparison.treatment))
        for policy, one in zip(policies, scored, strict=True)
    ]


def _outcomes(name: str, records: Sequence[Record]) -> RunOutcomes:
    from mapflow.results.statistics import RunOutcomes

    return RunOutcomes(
        name,
        [r.question_id for r in records],
        [r.correct for r in records],
        [r.video_id for r in records],
    )

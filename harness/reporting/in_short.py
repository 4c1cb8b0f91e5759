"""The first screen of a report: what the runs of each benchmark show, and what they cannot show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mapflow.harness.reporting.viewer import Key, Names, key
from mapflow.results.report import BenchmarkInShort, RunInShort, questions_link
from mapflow.results.runs.run import Run, incomplete_note, model_names, share_text
from mapflow.results.statistics import ONE_VIDEO, ChanceTest, accuracy, chance_level_test, count
from mapflow.results.statistics.compare import found_with_power
from mapflow.results.tables.cells import p_text
from mapflow.results.tables.comparison import ComparedPair

NOT_GUESSING = 0.05
"""p-value from which on an accuracy cannot be told from guessing."""


def in_short(
    groups: Sequence[Sequence[Run]],
    pairs: Sequence[ComparedPair],
    names: Names,
    margin: float,
    family: int,
) -> list[BenchmarkInShort]:
    """One entry per group: the runs of one benchmark, the baseline first.

    pairs: all comparisons that could be made. margin: of non-inferiority, as a fraction.
    family: the number of comparisons for which verdicts are corrected.
    """
    several = len(groups) > 1
    return [
        _benchmark(
            group,
            {key(one.treatment): one for one in pairs if one.baseline is group[0]},
            names,
            margin,
            family,
            group[0].title if several else None,
        )
        for group in groups
    ]


def _benchmark(
    runs: Sequence[Run],
    compared: Mapping[Key, ComparedPair],
    names: Names,
    margin: float,
    family: int,
    benchmark: str | None,
) -> BenchmarkInShort:
    answered = [run for run in runs if run.n]
    chance = {key(run): _chance(run) for run in answered}
    alone = [_alone(run, names[key(run)]) for run in answered] if not compared else []
    method = "Accuracies with 95 % intervals (Wilson, by video)."
    if compared:
        method += (
            " Differences with 95 % intervals, paired by question and clustered by video; verdicts"
            f" at a margin of {100 * margin:g} points"
        )
        method += f", corrected for {family} comparisons (Holm)." if family > 1 else "."
    return BenchmarkInShort(
        title=runs[0].title,
        lead=_lead(runs),
        sentences=[*(_capital(one.text) for one in compared.values()), *alone],
        open_points=_open_points(runs, answered, compared, names, chance),
        runs=[
            _row(run, runs[0], compared.get(key(run)), names, bool(compared), benchmark)
            for run in answered
        ],
        chance=next((one.chance for one in chance.values() if one), None),
        margin=margin,
        method=method,
    )


def _lead(runs: Sequence[Run]) -> str:
    """What was asked: "3 runs of pathways answered 320 questions about 160 videos of Motion."."""
    models = list(dict.fromkeys(model_names(runs)))
    of = f" of {models[0]}" if len(models) == 1 else ""
    questions = {question for run in runs for question in run.question_id.tolist()}
    known = all(run.video_id is not None for run in runs)
    videos = {video for run in runs if run.video_id is not None for video in run.video_id.tolist()}
    about = f" about {count(len(videos), 'video')}" if known else ""
    return (
        f"{count(len(runs), 'run')}{of} answered {count(len(questions), 'question')}{about}"
        f" of {runs[0].title}."
    )


def _alone(run: Run, name: str) -> str:
    found = accuracy(run.correct[~run.failed], run.cluster)
    limits = f"{100 * found.low:.1f}…{100 * found.high:.1f}"
    if found.method == ONE_VIDEO:
        limits = ONE_VIDEO
    return (
        f"{name} answers {100 * found.estimate:.1f} % of {count(run.n, 'question')} right,"
        f" 95 % CI {limits}."
    )


def _chance(run: Run) -> ChanceTest | None:
    """The test against guessing; None for open-ended questions."""
    kept = ~run.failed
    if not (run.n_options[kept] > 1).all():
        return None
    return chance_level_test(run.correct[kept], run.n_options[kept], run.n_right[kept])


def _open_points(
    runs: Sequence[Run],
    answered: Sequence[Run],
    compared: Mapping[Key, ComparedPair],
    names: Names,
    chance: Mapping[Key, ChanceTest | None],
) -> list[str]:
    """What these runs cannot show, and why."""
    said = []
    if len(runs) == 1:
        said.append(
            f"Whether a cut changes anything: {names[key(runs[0])]} is the only run, so nothing is"
            " compared."
        )
    for one in compared.values():
        name, against = names[key(one.treatment)], one.comparison.non_inferiority
        power = found_with_power(one.comparison.detectable)
        said += [
            f"Whether {name} loses more than {100 * against.margin:g} points:"
            f" {power[0].lower()}{power[1:]}"
            if note == power
            else f"{name}: {note}"
            for note in one.comparison.notes
        ]
        if one.not_asked:
            said.append(
                f"{name}: {count(one.not_asked, 'question')} failed in one run or the other and"
                " are not compared."
            )
    for run in answered:
        test = chance[key(run)]
        if test is not None and test.p_two_sided >= NOT_GUESSING:
            p = p_text(test.p_two_sided)
            said.append(f"Whether {names[key(run)]} does more than guess: p {p} against chance.")
    said += [
        f"{names[key(run)]}: all {count(run.errors, 'question')} failed."
        for run in runs
        if not run.n and run.errors
    ]
    said += (
        [f"What the whole benchmark would show: {share_text(runs[0])} are answered."]
        if len({share_text(run) for run in runs}) == 1 and not runs[0].complete
        else incomplete_note(runs)
    )
    return list(dict.fromkeys(said))


def _row(
    run: Run,
    baseline: Run,
    pair: ComparedPair | None,
    names: Names,
    compared: bool,
    benchmark: str | None,
) -> RunInShort:
    name, base = names[key(run)], names[key(baseline)]
    kept = ~run.failed
    wrong = int(np.count_nonzero(~run.correct[kept]))
    links = []
    if pair:
        cells = pair.comparison.cells
        links = [
            (
                f"{number:,} {flips}",
                questions_link(baseline=base, treatment=name, flips=flips, benchmark=benchmark),
            )
            for flips, number in (("lost", cells.lost), ("gained", cells.gained))
            if number
        ]
    for answer, number, text in (("wrong", wrong, "wrong"), ("error", run.errors, "failed")):
        if number:
            link = questions_link(baseline=name, treatment=name, answer=answer, benchmark=benchmark)
            links.append((f"{number:,} {text}", link))
    return RunInShort(
        name,
        accuracy(run.correct[kept], run.cluster),
        pair and pair.comparison.difference,
        (pair.comparison.direction or pair.comparison.non_inferiority.verdict)
        if pair
        else ("baseline" if compared and run is baseline else ""),
        links,
    )


def _capital(sentence: str) -> str:
    """With a capital, unless it begins with the name of a run."""
    return (sentence[0].upper() + sentence[1:] if sentence.startswith("it is ") else sentence) + "."

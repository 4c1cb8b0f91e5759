"""Runs that a command line names: `folder`, `folder:intervention`, or another tool's logs.

A folder may hold several benchmarks and several interventions. The result is one group of runs per
benchmark, its baseline first.
"""

from __future__ import annotations

import os
from collections.abc import Container, Sequence
from pathlib import Path
from typing import NamedTuple

from mapflow.harness.analyses.registry import analyses_in
from mapflow.model_adapters.interventions import parse_intervention
from mapflow.results.contract.errors import MapflowError
from mapflow.results.records.record import Record
from mapflow.results.runs.manifest import MANIFEST
from mapflow.results.runs.run import Run, read_runs
from mapflow.tasks.registry import benchmark_sizes, benchmark_titles


def all_runs(words: Sequence[str]) -> list[Run]:
    """Every run of every folder, in the order given."""
    return [run for word in words for run in _named(word)]


class Compared(NamedTuple):
    """`groups`: one list per benchmark, its baseline first; `notes`: benchmarks left out."""

    groups: list[list[Run]]
    notes: list[str]


def compared_runs(
    words: Sequence[str], baseline: str | None = None, *, intersect: bool = False
) -> Compared:
    """The runs to compare, by benchmark.

    Of a single folder its interventions are compared, and `baseline` names one of them; of several
    folders one run each. Raises MapflowError if a word is ambiguous, or if a run lacks the
    baseline's benchmark, unless `intersect`.
    """
    if len(words) == 1:
        return Compared(with_baseline(_named(words[0]), baseline), [])
    if baseline is not None:
        raise MapflowError(
            f"--baseline {baseline!r} belongs to a single folder; of several runs the first is the"
            " baseline"
        )
    by_word = [_one_intervention(word) for word in words]
    groups = []
    for benchmark in by_word[0]:
        lacking = [word for word, runs in zip(words, by_word, strict=True) if benchmark not in runs]
        if not lacking:
            groups.append([runs[benchmark] for runs in by_word])
        elif not intersect:
            raise MapflowError(
                f"{lacking[0]!r} has no answers to {benchmark!r}, {words[0]!r} has; use"
                " --intersect to leave it out"
            )
    extra = {benchmark for runs in by_word for benchmark in runs} - set(by_word[0])
    if extra and not intersect:
        raise MapflowError(
            f"{words[0]!r} has no answers to {sorted(extra)[0]!r}; use --intersect to leave it out"
        )
    if not groups:
        raise MapflowError(f"{' and '.join(words)} have no benchmark in common: nothing to compare")
    left_out: dict[str, list[str]] = {}
    for word, runs in zip(words, by_word, strict=True):
        for benchmark in runs.keys() - {group[0].benchmark for group in groups}:
            run = runs[benchmark]
            left_out.setdefault(run.title, []).append(f"{run.n:,} of {word}")
    notes = [
        f"{title} is left out, as not all runs have answers to it: {', '.join(counts)}."
        for title, counts in sorted(left_out.items())
    ]
    return Compared(groups, notes)


def with_baseline(runs: Sequence[Run], baseline: str | None) -> list[list[Run]]:
    """One list of runs per benchmark, the intervention `baseline` (default: the first) first.

    Raises MapflowError if a benchmark lacks it.
    """
    groups = []
    for benchmark in dict.fromkeys(run.benchmark for run in runs):
        own = [run for run in runs if run.benchmark == benchmark]
        wanted = baseline or own[0].intervention
        first = _called(own, wanted)
        if not first:
            names = ", ".join(dict.fromkeys(run.intervention for run in own))
            raise MapflowError(f"no intervention {wanted!r} on {benchmark!r}; there are {names}")
        groups.append([first[0], *(run for run in own if run is not first[0])])
    return groups


def named_place(word: str) -> tuple[Path, str]:
    """The folder or file of a word, and the intervention after it, which may be empty.

    Paths and interventions may both hold colons: the longest path that exists is the folder. Raises
    MapflowError if none does.
    """
    for at in [len(word), *(i for i in reversed(range(len(word))) if word[i] == ":")]:
        place, intervention = Path(os.path.expanduser(word[:at])), word[at + 1 :]  # noqa: PTH111
        if word[:at] and os.path.exists(place):  # noqa: PTH110 - False for a name too long
            return place, intervention
    raise MapflowError(f"{word!r} does not exist; name the folder of a run, or folder:intervention")


def _named(word: str) -> list[Run]:
    """The runs of a word."""
    place, intervention = named_place(word)
    if (found := analyses_in(place)) and not (place / Record.FILE).is_file():
        raise MapflowError(
            f"{str(place)!r} holds an analysis ({', '.join(found)}), not the answers of a run: use"
            " mapflow figure or mapflow report"
        )
    if place.is_file() and place.name == Record.FILE and (place.parent / MANIFEST).is_file():
        raise MapflowError(f"{str(place)!r} is one file of a run: name its folder")
    runs = read_runs(place, benchmark_titles(), benchmark_sizes())
    if not intervention:
        return runs
    chosen = _called(runs, intervention)
    if not chosen:
        names = ", ".join(dict.fromkeys(run.intervention for run in runs))
        raise MapflowError(f"{str(place)!r} has no intervention {intervention!r}; it has {names}")
    return chosen


def recorded_name(names: Container[str], word: str) -> str:
    """The intervention or route among `names` that a word means: "video:last" is "video->last".

    The word itself where there is none.
    """
    if word in names:
        return word
    try:
        return str(parse_intervention(word))
    except MapflowError:
        return word


def _called(runs: Sequence[Run], name: str) -> list[Run]:
    """The runs of an intervention, in any of its spellings."""
    wanted = recorded_name({run.intervention for run in runs}, name)
    return [run for run in runs if run.intervention == wanted]


def _one_intervention(word: str) -> dict[str, Run]:
    runs = _named(word)
    names = list(dict.fromkeys(run.intervention for run in runs))
    if len(names) > 1:
        raise MapflowError(
            f"{word!r} holds several interventions ({', '.join(names)}); name one, e.g."
            f" {word}:{names[0]}"
        )
    return {run.benchmark: run for run in runs}

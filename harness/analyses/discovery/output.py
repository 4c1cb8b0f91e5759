"""The result of a discovery, as a table and as YAML files.

`discovered.yaml` goes to --intervention; RULE/pathways.yaml belongs into the folder of the
checkpoint, where `effective` finds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tabulate import tabulate

from mapflow.harness.analyses.discovery.rules import PATHWAYS, Found
from mapflow.results.records.sweep import SweepRecord
from mapflow.results.runs.folder import write_json
from mapflow.results.statistics import Comparison, count, points, sentence

if TYPE_CHECKING:
    from mapflow.harness.analyses.samples import Samples


@dataclass(frozen=True)
class Scored:
    """One rule at one threshold, and its cross-fitted score.

    Attributes:
        found: the ranges found on all questions.
        without: the ranges found without fold 0, and without fold 1.
        comparison: each fold under the ranges found without it, against `full`; None if a half
            found no policy.
        edges: share of attention edges kept; None likewise.
        not_asked: questions that failed.
    """

    found: Found
    without: tuple[Found, Found]
    comparison: Comparison | None
    edges: float | None
    not_asked: int = 0


@dataclass(frozen=True)
class Sample:
    """The questions that ranges were found on: those of `samples`, `measured` of `asked`."""

    samples: Samples
    measured: int
    asked: int

    @classmethod
    def of(cls, samples: Samples, records: Sequence[SweepRecord]) -> Sample:
        """Counted over the records of all sweeps."""
        asked = {record.question_id for record in records}
        missing = {record.question_id for record in records if not record.measured}
        return cls(samples, len(asked - missing), len(asked))

    def __str__(self) -> str:
        which = {
            "correct": ", those that the model answers right without a cut",
            "wrong": ", those that the model answers wrong without a cut",
            "all": "",
        }[self.samples]
        return f"{self.measured:,} of {self.asked:,} questions{which}"


def describe(scored: Sequence[Scored], sample: Sample) -> str:
    """One row per rule and threshold: ranges of all questions and of the halves, and the score."""
    rows = [
        [
            one.found.rule,
            f"{one.found.threshold:g} %",
            *(
                " | ".join(_span(half, name) for half in (one.found, *one.without))
                for name in PATHWAYS
            ),
            *_result(one),
        ]
        for one in scored
    ]
    heads = [
        "rule",
        "below",
        *PATHWAYS.values(),
        "full",
        "effective",
        "difference",
        "verdict",
        "edges",
    ]
    table = tabulate(rows, headers=heads, disable_numparse=True)
    sentences = [sentence(one.comparison) for one in scored if one.comparison is not None]
    notes = [
        "\nlayers: all questions | without the first half | without the second half; – none. Each"
        " half is scored under"
        " the ranges found without it.",
        f"ranges are found on {sample}; scores are of all questions",
        *dict.fromkeys(sentences),
        *_family(scored),
        *(
            f"{count(scored[0].not_asked, 'question')} could not be asked"
            for _ in range(scored[0].not_asked > 0)
        ),
    ]
    return "\n".join(["", table, *notes])


def _family(scored: Sequence[Scored]) -> list[str]:
    """Which comparisons the verdicts are corrected for."""
    sizes = {one.comparison.non_inferiority.family for one in scored if one.comparison}
    return [
        f"verdicts are corrected for the family of all {size} policies scored here (Holm)"
        for size in sizes
        if size > 1
    ]


def _span(found: Found, name: str) -> str:
    return str(found.spans[name] or "–")


def _result(one: Scored) -> list[str]:
    if one.comparison is None or one.edges is None:
        return ["", "", "", "no policy: a pathway was not found", ""]
    found = one.comparison
    return [
        f"{found.baseline_accuracy.estimate:.1%}",
        f"{found.treatment_accuracy.estimate:.1%}",
        f"{points(found.difference.estimate)} [{points(found.difference.low)},"
        f" {points(found.difference.high)}]",
        found.non_inferiority.verdict,
        f"{one.edges:.1%}",
    ]


def write_policies(
    scored: Sequence[Scored],
    sample: Sample,
    threshold: float,
    model: str,
    n_layers: int,
    folder: Path,
) -> list[str]:
    """Writes a policy per rule at `threshold` (discovered.yaml, RULE/pathways.yaml), all numbers.

    Returns lines that say what was written and what could not be. Files of an earlier run that no
    longer hold are removed.
    """
    lines, entries = [], []
    for one in scored:
        if one.found.threshold != threshold:
            continue
        file = folder / one.found.rule / "pathways.yaml"
        if one.found.ranges is None:
            file.unlink(missing_ok=True)
            missing = [route for name, route in PATHWAYS.items() if one.found.spans[name] is None]
            lines.append(f"{one.found.rule}: no policy: no layers found for {', '.join(missing)}")
            continue
        comment = (
            f"# Layers (1-based, inclusive) of {model}, found by `mapflow discover`: rule"
            f" {one.found.rule}, below"
            f" {threshold:g} %, on {sample}.\n"
            f"# On questions that did not help to find them: {_score(one)}.\n"
        )
        spans = [f"{name}: {one.found.spans[name]}" for name in PATHWAYS]
        file.parent.mkdir(exist_ok=True)
        file.write_text(
            comment + "\n".join([*spans, f"layers: {n_layers}"]) + "\n", encoding="utf-8"
        )
        entries.append(
            comment + f"discovered-{one.found.rule}:\n  effective: {{{', '.join(spans)}}}\n"
        )
        lines.append(f"written: {file} ({_score(one)})")
    policies = folder / "discovered.yaml"
    policies.unlink(missing_ok=True)
    if entries:
        policies.write_text("".join(entries), encoding="utf-8")
        lines.append(f"written: {policies} (--intervention {policies})")
    write_json(
        folder / "discovery.json",
        {
            "model": model,
            "layers": n_layers,
            "samples": sample.samples,
            "questions": sample.measured,
            "questions_asked": sample.asked,
            "found": [_json(s) for s in scored],
        },
    )
    return lines


def _score(one: Scored) -> str:
    """The score shown beside a policy, as ranges can be found and still be useless."""
    return (
        sentence(one.comparison) if one.comparison else "not scored, a half of them found no policy"
    )


def _json(one: Scored) -> dict[str, object]:
    comparison = one.comparison
    return {
        "rule": one.found.rule,
        "threshold": one.found.threshold,
        "ranges": {name: str(span) if span else None for name, span in one.found.spans.items()},
        "ranges_without": [{name: _span(half, name) for name in PATHWAYS} for half in one.without],
        "n": comparison.n if comparison else 0,
        "not_asked": one.not_asked,
        "accuracy_full": comparison.baseline_accuracy.estimate if comparison else None,
        "accuracy_effective": comparison.treatment_accuracy.estimate if comparison else None,
        "difference": [getattr(comparison.difference, part) for part in ("estimate", "low", "high")]
        if comparison
        else None,
        "verdict": comparison.non_inferiority.verdict if comparison else None,
        "edges_kept": one.edges,
    }

"""LensRecord: the words that video tokens look like in every layer, and counts of listed words.

One line of lens.jsonl per question and intervention: layers x video tokens x k entries, some
megabytes for the prompt of a 7B model. Word lists are applied to records afterwards, so other lists
need no other run.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import chain
from typing import ClassVar

from tabulate import tabulate

from mapflow.results.records.base import JsonlRecord

WordLists = Mapping[str, AbstractSet[str]]
"""Name → words in lower case."""


@dataclass(frozen=True)
class LensRecord(JsonlRecord):
    """Sequences over layers hold one entry per layer; entry l - 1 belongs to (1-based) layer l.

    Attributes:
        raw_embeddings: the variant of the authors' code, which shows the input of each layer.
        frames: 0-based frame of each video token.
        ids, probabilities: `ids[l][t]`, the k most probable tokens at the t-th video token, best
            first.
        words: the text of every id that occurs.
    """

    FILE: ClassVar[str] = "lens.jsonl"
    RUN: ClassVar[str] = "a lens"
    OPTIONAL: ClassVar[frozenset[str]] = frozenset({"left_out"})
    PER_LAYER: ClassVar[tuple[str, ...]] = ("ids",)

    question_id: str
    video_id: str
    task: str
    intervention: str
    protocol: str
    raw_embeddings: bool
    frames: tuple[int, ...] = ()
    ids: tuple[Sequence[Sequence[int]], ...] = ()
    probabilities: tuple[Sequence[Sequence[float]], ...] = ()
    words: Mapping[str, str] | None = None
    left_out: str | None = None
    error: str | None = None

    def contradiction(self) -> str | None:
        for layer in self.ids:
            if len(layer) != len(self.frames) or not all(layer):
                return f"ids name tokens of {len(layer)} video tokens, frames of {len(self.frames)}"
        ids, shown = ([[*map(len, one)] for one in two] for two in (self.ids, self.probabilities))
        if ids != shown:
            return "not one probability per token of ids"
        found = {*chain.from_iterable(chain.from_iterable(self.ids))}
        if missing := {*map(str, found)}.difference(self.words or {}):
            return f"words lack token {min(missing)}"
        return super().contradiction()


@dataclass(frozen=True)
class Frequency:
    """Word counts of one (1-based) layer under one intervention.

    Attributes:
        entries: video tokens x k, over all questions.
        hits: how many entries each word list contains.
        common: the words that come first most often.
    """

    intervention: str
    layer: int
    entries: int
    hits: Mapping[str, int]
    common: tuple[str, ...]


def frequencies(
    records: Sequence[LensRecord], interventions: Sequence[str], lists: WordLists
) -> list[Frequency]:
    """One entry per intervention and layer.

    A token counts as a word if it is the whole word, regardless of case and of a leading space.
    Words of several tokens are never found.
    """
    found = []
    for name in interventions:
        own = [record for record in records if record.intervention == name and record.measured]
        for layer in range(max((len(record.ids) for record in own), default=0)):
            every, first = Counter[str](), Counter[str]()
            for record in own:
                words = record.words or {}
                every.update(words[str(one)] for token in record.ids[layer] for one in token)
                first.update(words[str(token[0])] for token in record.ids[layer])
            hits = {
                title: sum(n for word, n in every.items() if word.strip().lower() in listed)
                for title, listed in lists.items()
            }
            common = tuple(
                word for word, _ in sorted(first.items(), key=lambda one: (-one[1], one[0]))[:5]
            )
            found.append(Frequency(name, layer + 1, every.total(), hits, common))
    return found


def frequency_csv(found: Sequence[Frequency]) -> str:
    """One row per intervention, layer and word list; `share` is hits / entries."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["intervention", "layer", "words", "hits", "entries", "share"])
    for one in found:
        for title, hits in one.hits.items():
            table.writerow(
                [one.intervention, one.layer, title, hits, one.entries, f"{hits / one.entries:.6g}"]
            )
    return text.getvalue()


def frequency_table(found: Sequence[Frequency]) -> str:
    """One row per intervention and layer: word lists in percent, most frequent first words."""
    titles = list(found[0].hits) if found else []
    rows = [
        [
            one.intervention,
            one.layer,
            *(f"{100 * one.hits[title] / one.entries:.2f}" for title in titles),
            " ".join(word or "·" for word in one.common),
        ]
        for one in found
    ]
    headers = ["intervention", "layer", *titles, "most often first"]
    align = ["left", "right", *("right" for _ in titles), "left"]
    return tabulate(rows, headers=headers, disable_numparse=True, colalign=align if rows else None)

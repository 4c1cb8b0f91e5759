"""How often do video tokens look like spatial and temporal words? A panel a word list, a curve an intervention.

A share is of all entries, video tokens × k of all questions, as in `mapflow lens`'s table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mapflow.results.contract.errors import MapflowError
from mapflow.results.figures.mean_curves import MeanCurve, draw_curve, mean_curve
from mapflow.results.figures.panels import add_legend, panels
from mapflow.results.records.lens import LensRecord, WordLists, frequencies

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class LensCurve:
    words: str
    intervention: str
    curve: MeanCurve


def lens_panels(
    records: Sequence[LensRecord], lists: WordLists, interventions: Sequence[str] = ()
) -> list[LensCurve]:
    """A curve a list and intervention, lists outermost. `interventions` gives an order; others follow.

    Raises MapflowError for prompts of different depth under one intervention, and where no question was read.
    """
    read = [record for record in records if record.error is None]
    if not read:
        raise MapflowError("no question was read by the lens, so there is no curve to draw")
    names = dict.fromkeys([*interventions, *(record.intervention for record in read)])
    by_name = {name: [record for record in read if record.intervention == name] for name in names}
    return [
        LensCurve(title, name, _curve(own, title, lists))
        for title in lists
        for name, own in by_name.items()
        if own
    ]


def _curve(records: Sequence[LensRecord], title: str, lists: WordLists) -> MeanCurve:
    depths = {len(record.ids) for record in records}
    if len(depths) > 1:
        raise MapflowError(
            f"{records[0].intervention!r}: readings of {' and '.join(map(str, sorted(depths)))} layers cannot be averaged"
        )
    counts = [
        frequencies([record], [record.intervention], {title: lists[title]}) for record in records
    ]
    entries = [layers[0].entries for layers in counts]
    shares = [[layer.hits[title] / layer.entries for layer in layers] for layers in counts]
    unit = math.gcd(*entries)  # prompts of one length count once each
    return mean_curve(
        np.array(shares), [record.video_id for record in records], [one // unit for one in entries]
    )


def lens_curves(found: Sequence[LensCurve], title: str = "") -> Figure:
    """All panels share their axes; the legend of interventions stands below them."""
    lists = list(dict.fromkeys(one.words for one in found))
    names = list(dict.fromkeys(one.intervention for one in found))
    figure, grid = panels([f"{words} words" for words in lists], title)
    handles: dict[str, Any] = {}
    for words, panel in zip(lists, grid, strict=True):
        own = [one for one in found if one.words == words]
        for one in own:
            handles[one.intervention] = draw_curve(panel, one.curve, names.index(one.intervention))
        panel.set_xlabel(f"layer (n = {max(one.curve.n for one in own)})", fontsize=8)
        panel.set_ylim(bottom=0)
        if panel.get_subplotspec().is_first_col():  # pyright: ignore[reportOptionalMemberAccess]
            panel.set_ylabel("share of words at\nvideo tokens, %", fontsize=8)
    add_legend(figure, list(handles.values()), list(handles))
    return figure


def lens_rows(found: Sequence[LensCurve]) -> list[dict[str, Any]]:
    """The figure's data: a row a list, intervention and layer; shares 0 … 1."""
    return [
        row
        for one in found
        for row in one.curve.rows({"words": one.words, "intervention": one.intervention})
    ]

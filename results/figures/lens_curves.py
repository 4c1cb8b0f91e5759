"""Draws how often video tokens look like words of the word lists, by layer.

One panel per word list, one curve per intervention. A share is of all entries of all questions
(video tokens × k), as in the table of `mapflow lens`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mapflow.results.contract.errors import MapflowError
from mapflow.results.figures.mean_curves import (
    CurveBlock,
    CurvePanel,
    check_depth,
    draw_panels,
    mean_curve,
    panel_rows,
)
from mapflow.results.records.lens import LensRecord, WordLists, frequencies

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mapflow.results.figures.mean_curves import MeanCurve


def lens_panels(
    records: Sequence[LensRecord], lists: WordLists, interventions: Sequence[str] = ()
) -> list[CurvePanel]:
    """One panel per word list.

    interventions: their order; others follow in the order of the records.

    Failed questions are left out. Raises MapflowError for records of different depth under one
    intervention, and if every question failed.
    """
    read = [record for record in records if record.measured]
    if not read:
        raise MapflowError("no question has lens results: nothing to draw")
    names = dict.fromkeys([*interventions, *(record.intervention for record in read)])
    by_name = {name: [record for record in read if record.intervention == name] for name in names}
    return [
        CurvePanel(
            f"{title} words",
            {"words": title},
            {name: _curve(own, title, lists) for name, own in by_name.items() if own},
        )
        for title in lists
    ]


def _curve(records: Sequence[LensRecord], title: str, lists: WordLists) -> MeanCurve:
    check_depth(records[0].intervention, [len(record.ids) for record in records])
    counts = [
        frequencies([record], [record.intervention], {title: lists[title]}) for record in records
    ]
    entries = [layers[0].entries for layers in counts]
    shares = [[layer.hits[title] / layer.entries for layer in layers] for layers in counts]
    unit = math.gcd(*entries)  # prompts of one length get weight 1
    return mean_curve(
        np.array(shares), [record.video_id for record in records], [one // unit for one in entries]
    )


def lens_curves(found: Sequence[CurvePanel], title: str = "") -> Figure:
    """All panels on one scale, with a legend of the interventions."""
    return draw_panels([found], "share of words at\nvideo tokens, %", title)


def lens_blocks(found: Sequence[CurvePanel]) -> list[CurveBlock]:
    """All panels on one axis."""
    return [CurveBlock("share of words at video tokens, %", found)]


def lens_rows(found: Sequence[CurvePanel]) -> list[dict[str, Any]]:
    """The figure's data: one row per word list, intervention and layer; shares from 0 to 1."""
    return panel_rows(found, "intervention")

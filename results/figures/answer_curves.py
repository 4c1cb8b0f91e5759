"""Draws the probabilities of the answers after every layer.

One panel per intervention, with or without the final norm. Curves: the true option, the mean over
false options, and the answer of the baseline run.
"""

from __future__ import annotations

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
from mapflow.results.records.trace import TraceRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mapflow.results.figures.mean_curves import MeanCurve

ANSWERS = ("true option", "mean false option", "base answer")


def answer_panels(
    records: Sequence[TraceRecord], interventions: Sequence[str] = ()
) -> list[CurvePanel]:
    """One panel per intervention and norm, those with the final norm first.

    interventions: their order; others follow in the order of the records.

    Failed questions are left out. Raises MapflowError for a question that occurs twice (traces of
    different models), for records of different depth in one panel, and if every question failed.
    """
    keys = [(record.key, record.norm) for record in records]
    if len(set(keys)) < len(keys):
        (question, name), norm = next(key for key in keys if keys.count(key) > 1)
        raise MapflowError(
            f"question {question} under {name!r} was traced twice {_norm(norm)}:"
            " draw these folders one by one"
        )
    traced = [record for record in records if record.measured]
    names = list(dict.fromkeys([*interventions, *(record.intervention for record in traced)]))
    both = len({record.norm for record in traced}) > 1
    found = []
    for norm in (True, False):
        for name in names:
            own = [one for one in traced if (one.norm, one.intervention) == (norm, name)]
            if own:
                title = name if norm and not both else f"{name} ({_norm(norm)})"
                about = {"intervention": name, "final_norm": norm}
                found.append(CurvePanel(title, about, _curves(own)))
    if not found:
        raise MapflowError("no question could be traced: nothing to draw")
    return found


def _curves(records: Sequence[TraceRecord]) -> dict[str, MeanCurve]:
    """The curves by name; that of the false options is absent if no question has any."""
    check_depth(records[0].intervention, [len(record.p_targets) for record in records])
    with_false = [record for record in records if record.false_options]
    curves = {
        "true option": (records, [record.p_targets for record in records]),
        "mean false option": (with_false, [record.p_false for record in with_false]),
        "base answer": (records, [record.p_answers for record in records]),
    }
    return {
        name: mean_curve(np.array(values, dtype=float), [record.video_id for record in own])
        for name, (own, values) in curves.items()
        if own
    }


def answer_curves(found: Sequence[CurvePanel], title: str = "") -> Figure:
    """All panels on one scale; those without the final norm start a new row."""
    blocks = answer_blocks(found)
    return draw_panels([one.panels for one in blocks], blocks[0].label, title, ANSWERS)


def answer_blocks(found: Sequence[CurvePanel]) -> list[CurveBlock]:
    """Panels with the final norm, then those without it."""
    by_norm = [[one for one in found if one.about["final_norm"] == norm] for norm in (True, False)]
    return [CurveBlock("probability, %", block) for block in by_norm if block]


def answer_rows(found: Sequence[CurvePanel]) -> list[dict[str, Any]]:
    """The figure's data: one row per panel, curve and layer; probabilities from 0 to 1."""
    return panel_rows(found, "curve")


def _norm(norm: bool) -> str:
    return "with final norm" if norm else "without final norm"

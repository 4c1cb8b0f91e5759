"""In which layer does the answer appear? A panel an intervention, with or without final norm: how probable the plain run's
answer, the true option and the mean false option are after every layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mapflow.results.contract.errors import MapflowError
from mapflow.results.figures.mean_curves import MeanCurve, draw_curve, mean_curve
from mapflow.results.figures.panels import add_legend, panels
from mapflow.results.records.trace import TraceRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ANSWERS = ("true option", "mean false option", "base answer")


@dataclass(frozen=True)
class AnswerPanel:
    """`curves` by one of ANSWERS; the false options' is absent where no question has any."""

    intervention: str
    norm: bool
    curves: dict[str, MeanCurve]


def answer_panels(
    records: Sequence[TraceRecord], interventions: Sequence[str] = ()
) -> list[AnswerPanel]:
    """A panel an intervention, for records with final norm first. `interventions` gives an order; others follow.

    Questions that could not be traced count for none. Raises MapflowError for a question that comes twice (two traces of
    different models), for questions of different depth in one panel, and where nothing is left.
    """
    names = list(dict.fromkeys([*interventions, *(record.intervention for record in records)]))
    keys = [(record.key, record.norm) for record in records]
    if len(set(keys)) < len(keys):
        (question, name), norm = next(key for key in keys if keys.count(key) > 1)
        raise MapflowError(
            f"question {question} under {name!r} was traced twice {_norm(norm)}: draw these folders one by one"
        )
    found = []
    for norm in (True, False):
        for name in names:
            own = [
                r for r in records if (r.norm, r.intervention) == (norm, name) and r.error is None
            ]
            if own:
                found.append(AnswerPanel(name, norm, _curves(own)))
    if not found:
        raise MapflowError("no question could be traced, so there is no curve to draw")
    return found


def _curves(records: Sequence[TraceRecord]) -> dict[str, MeanCurve]:
    depths = {len(record.p_targets) for record in records}
    if len(depths) > 1:
        raise MapflowError(
            f"{records[0].intervention!r}: traces of {' and '.join(map(str, sorted(depths)))} layers cannot be averaged"
        )
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


def answer_curves(found: Sequence[AnswerPanel], title: str = "") -> Figure:
    """All panels share their axes; the legend stands below them."""
    both = len({panel.norm for panel in found}) > 1
    titles = [
        f"{one.intervention}{f' ({_norm(one.norm)})' if both or not one.norm else ''}"
        for one in found
    ]
    with_norm = sum(one.norm for one in found)  # without it stands below with it
    figure, grid = panels(titles, title, with_norm if both else len(found))
    handles: dict[str, Any] = {}
    for one, panel in zip(found, grid, strict=True):
        for number, name in enumerate(ANSWERS):
            if name in one.curves:
                handles[name] = draw_curve(panel, one.curves[name], number)
        panel.set_xlabel(f"layer (n = {one.curves['true option'].n})", fontsize=8)
        if panel.get_subplotspec().is_first_col():  # pyright: ignore[reportOptionalMemberAccess]
            panel.set_ylabel("probability, %", fontsize=8)
    add_legend(figure, list(handles.values()), list(handles))
    return figure


def answer_rows(found: Sequence[AnswerPanel]) -> list[dict[str, Any]]:
    """The figure's data: a row a panel, curve and layer; probabilities 0 … 1."""
    return [
        row
        for one in found
        for name in ANSWERS
        if name in one.curves
        for row in one.curves[name].rows(
            {"intervention": one.intervention, "final_norm": one.norm, "curve": name}
        )
    ]


def _norm(norm: bool) -> str:
    return "with final norm" if norm else "without final norm"

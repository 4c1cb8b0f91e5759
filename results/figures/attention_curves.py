"""Draws how the chosen query positions share their attention among the keys, by layer.

One panel per intervention, in two rows: parts of the prompt (system, video, question, template,
last) above, single frames below on a scale of their own. Shares are means over heads and query
positions, as in the records.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mapflow.results.contract.errors import MapflowError
from mapflow.results.figures.mean_curves import (
    CurveBlock,
    CurvePanel,
    check_depth,
    draw_curve,
    label_axes,
    mean_curve,
    panel_rows,
)
from mapflow.results.figures.panels import Pen, add_legend, panels, pen
from mapflow.results.records.attention import PARTS, AttentionRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mapflow.results.figures.mean_curves import MeanCurve

FRAME_COLOURS = "viridis_r"
"""From light (first frame) to dark (last frame), also in black and white."""


def attention_panels(
    records: Sequence[AttentionRecord], interventions: Sequence[str] = ()
) -> list[CurvePanel]:
    """One panel per intervention, with a curve for each part of the prompt and each frame.

    interventions: their order; others follow in the order of the records.

    A frame's mean is over the questions that have this frame. Failed questions are left out.
    Raises MapflowError for records of different depth under one intervention, for records of
    different query positions, and if every question failed.
    """
    asked = [record for record in records if record.measured]
    if not asked:
        raise MapflowError("no question has attention maps: nothing to draw")
    rows = sorted({record.rows for record in asked})
    if len(rows) > 1:
        raise MapflowError(
            f"attention of the positions {' and '.join(rows)} cannot be drawn in one figure:"
            " draw these folders one by one"
        )
    names = dict.fromkeys([*interventions, *(record.intervention for record in asked)])
    by_name = {name: [one for one in asked if one.intervention == name] for name in names}
    return [
        CurvePanel(name, {"intervention": name, "query": rows[0]}, _curves(own))
        for name, own in by_name.items()
        if own
    ]


def _curves(records: Sequence[AttentionRecord]) -> dict[str, MeanCurve]:
    check_depth(records[0].intervention, [len(record.by_frame) for record in records])
    found = {
        part: _mean(records, [(record.shares or {})[part] for record in records]) for part in PARTS
    }
    for frame in range(max(len(record.by_frame[0]) for record in records)):
        own = [record for record in records if frame < len(record.by_frame[0])]
        shares = [[layer[frame] for layer in record.by_frame] for record in own]
        found[_frame(frame)] = _mean(own, shares)
    return found


def _mean(records: Sequence[AttentionRecord], shares: Sequence[Sequence[float]]) -> MeanCurve:
    return mean_curve(np.array(shares, dtype=float), [record.video_id for record in records])


def attention_curves(found: Sequence[CurvePanel], title: str = "") -> Figure:
    """Parts in the upper row with a legend, frames in the lower row with a colour bar."""
    import matplotlib
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import BoundaryNorm, to_hex

    titles = [one.title for one in found]
    figure, (upper, lower) = panels([titles, titles], title, one_scale=False)
    n_frames = max(len(one.curves) for one in found) - len(PARTS)
    colours = matplotlib.colormaps[FRAME_COLOURS].resampled(n_frames)
    handles: dict[str, Any] = {}
    for one, panel in zip(found, upper, strict=True):
        for number, part in enumerate(PARTS):
            handles[part] = draw_curve(panel, one.curves[part], pen(number))
    for one, panel in zip(found, lower, strict=True):
        for frame in range(len(one.curves) - len(PARTS)):
            ink = Pen(to_hex(colours(frame)), "-", "")
            draw_curve(panel, one.curves[_frame(frame)], ink)
    query = found[0].about["query"]
    label_axes(found, upper, f"attention of\n{query} positions, %")
    label_axes(found, lower, f"attention of {query}\npositions to a frame, %")
    bar = figure.colorbar(
        ScalarMappable(BoundaryNorm(np.arange(n_frames + 1) - 0.5, n_frames), colours),
        ax=lower,
        ticks=sorted({0, n_frames - 1}),
        pad=0.02,
    )
    bar.set_label("frame", fontsize=8)
    bar.ax.tick_params(labelsize=7, length=0)
    add_legend(figure, list(handles.values()), list(handles))
    return figure


def attention_blocks(found: Sequence[CurvePanel]) -> list[CurveBlock]:
    """Parts of the prompt on one axis, single frames on another."""

    def only(panel: CurvePanel, parts: bool) -> CurvePanel:
        chosen = {name: one for name, one in panel.curves.items() if (name in PARTS) == parts}
        return replace(panel, curves=chosen)

    query = found[0].about["query"]
    return [
        CurveBlock(f"attention of {query} positions, %", [only(one, True) for one in found]),
        CurveBlock(
            f"attention of {query} positions to a frame, %",
            [only(one, False) for one in found],
            ordered=True,
        ),
    ]


def attention_rows(found: Sequence[CurvePanel]) -> list[dict[str, Any]]:
    """The figure's data: one row per intervention, key part or frame, and layer; shares 0 to 1."""
    return panel_rows(found, "key")


def _frame(number: int) -> str:
    return f"frame {number}"

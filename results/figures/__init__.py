"""Figures for papers and READMEs, drawn with matplotlib; the data of each can be saved as CSV.

matplotlib is imported when a figure is drawn, so importing this package is fast.
"""

from mapflow.results.figures.answer_curves import (
    answer_blocks,
    answer_curves,
    answer_panels,
    answer_rows,
)
from mapflow.results.figures.attention_curves import (
    attention_blocks,
    attention_curves,
    attention_panels,
    attention_rows,
)
from mapflow.results.figures.attention_overlay import (
    AttentionOverlay,
    attention_overlay,
    difference_overlay,
    overlay_rows,
)
from mapflow.results.figures.edge_map import EdgeMap, edge_map, edge_rows, kept_edges, kept_rows
from mapflow.results.figures.lens_curves import lens_blocks, lens_curves, lens_panels, lens_rows
from mapflow.results.figures.lens_overlay import LensOverlay, lens_overlay, lens_overlay_rows
from mapflow.results.figures.mean_curves import CurveBlock, CurvePanel
from mapflow.results.figures.policy_diagram import PolicyDiagram, policy_diagram, policy_rows
from mapflow.results.figures.route_curves import RoutePanel, route_curves, route_panels, route_rows
from mapflow.results.figures.saving import save_figure

__all__ = [
    "AttentionOverlay",
    "CurveBlock",
    "CurvePanel",
    "EdgeMap",
    "LensOverlay",
    "PolicyDiagram",
    "RoutePanel",
    "answer_blocks",
    "answer_curves",
    "answer_panels",
    "answer_rows",
    "attention_blocks",
    "attention_curves",
    "attention_overlay",
    "attention_panels",
    "attention_rows",
    "difference_overlay",
    "edge_map",
    "edge_rows",
    "kept_edges",
    "kept_rows",
    "lens_blocks",
    "lens_curves",
    "lens_overlay",
    "lens_overlay_rows",
    "lens_panels",
    "lens_rows",
    "overlay_rows",
    "policy_diagram",
    "policy_rows",
    "route_curves",
    "route_panels",
    "route_rows",
    "save_figure",
]

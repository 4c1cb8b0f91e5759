"""One self-contained HTML page about runs: tables, policy diagrams, certificates, sweeps, every question.

`render_report` turns `ReportContents`, which is data alone, into the page. Knows no model, no video and no instrument.
"""

from mapflow.results.report.contents import (
    Answer,
    ReportContents,
    SweepFigure,
    ViewedQuestion,
    ViewerData,
)
from mapflow.results.report.page import render_report

__all__ = [
    "Answer",
    "ReportContents",
    "SweepFigure",
    "ViewedQuestion",
    "ViewerData",
    "render_report",
]

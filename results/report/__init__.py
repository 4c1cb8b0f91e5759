"""One self-contained HTML page about runs: tables, sweeps, policy diagrams and every question.

`render_report` turns `ReportContents`, which holds data only, into the page.
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

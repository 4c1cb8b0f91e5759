"""One self-contained HTML page about runs and analyses, with a viewer of every question.

`render_report` turns `ReportContents`, which holds data only, into the page.
"""

from mapflow.results.report.contents import (
    AnalysisFigure,
    AnalysisSection,
    Answer,
    BenchmarkInShort,
    ReportContents,
    RunInShort,
    ViewedQuestion,
    ViewerData,
    questions_link,
)
from mapflow.results.report.page import render_report

__all__ = [
    "AnalysisFigure",
    "AnalysisSection",
    "Answer",
    "BenchmarkInShort",
    "ReportContents",
    "RunInShort",
    "ViewedQuestion",
    "ViewerData",
    "questions_link",
    "render_report",
]

"""Text that would act instead of show: on a terminal, in a browser, in a spreadsheet, in a
document."""

import base64
import csv
import hashlib
import io
import json
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.visible_text import visible, visible_json, visible_lines
from mapflow.results.figures import CurveBlock, CurvePanel, PolicyDiagram, RoutePanel
from mapflow.results.figures.mean_curves import MeanCurve
from mapflow.results.report import (
    AnalysisFigure,
    AnalysisSection,
    Answer,
    BenchmarkInShort,
    ReportContents,
    RunInShort,
    ViewedQuestion,
    ViewerData,
    questions_link,
    render_report,
)
from mapflow.results.report.page import script_json
from mapflow.results.statistics import Interval
from mapflow.results.tables.formats import FORMATS, Column, Table, html_table, render

ACTING = (
    "\x1b[2J\x1b]0;owned\x07\x1b]8;;http://x\x1b\\ \x9b31m \x08\x0c\r\x7f\x85 \u202eevil\u202c"
    " \u2066x\u2069 \u200f \u061c"
    " \u2028 \ufeff \U000e0041 \ud800"
)
EVIL = (
    f"{ACTING} <script>alert(1)</script> </script><!--<script> \" onload='x' javascript:alert(1)"
    " =cmd|'/c'!A1 \\input{x} [a](javascript:x) ![b](//x)"
)
COLUMNS = (Column("name " + EVIL, lambda row: row["name"], right=False),)
TABLE = Table(
    "Title " + EVIL,
    COLUMNS,
    [{"name": EVIL}, {"name": "=1+1"}],
    ["Note " + EVIL],
    [("model " + EVIL, EVIL)],
)
FORBIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff\U000e0041]"
)


@pytest.mark.parametrize("how", FORMATS)
def test_no_format_lets_a_character_act(how):
    text = render([TABLE], how)
    assert not FORBIDDEN.search(text)
    text.encode()
    assert "owned" in text


@pytest.mark.parametrize("how", FORMATS)
def test_a_line_of_a_table_stays_a_line(how):
    rows = [{"name": "one"}, {"name": "two"}]
    broken = [{"name": "one\r\n\x0b\x0c\x1c\x85\u2028\u2029"}, {"name": "two"}]
    plain, hostile = (
        render([Table("t", [Column("n", lambda r: r["name"])], r)], how) for r in (rows, broken)
    )
    if how not in ("csv", "json"):  # these keep a value's line ends, quoted
        assert len(hostile.splitlines()) == len(plain.splitlines())


def test_json_keeps_what_it_was_given():
    (table,) = json.loads(render([TABLE], "json"))
    assert table["rows"] == [dict(row) for row in TABLE.rows] and table["title"] == TABLE.title


def test_no_cell_of_csv_is_a_formula():
    evil = ["=1+1", "+1", "-1+2", "@SUM(A1)", "\t=1", "\r=1"]
    rows = [{"name": text, "value": -0.5} for text in evil]
    lines = render([Table("t", COLUMNS, rows)], "csv").split("\n", 1)[1]
    found = list(csv.DictReader(io.StringIO(lines)))
    assert [row["name"][0] for row in found] == ["'"] * len(evil)
    assert [row["name"][1:] for row in found] == [text.replace("\r", "\\r") for text in evil]
    assert {row["value"] for row in found} == {"-0.5"}  # numbers are no texts


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs


def contents(text: str) -> ReportContents:
    answers = [
        Answer(text, True, True, {"A": 0.5, text: 0.5}, None),
        Answer(None, None, None, None, text),
    ]
    link = questions_link(baseline=text, treatment=text, task=text, benchmark=text)
    question = ViewedQuestion(text, text, text, text, answers, text, [text, text], [text], text)
    table = Table(
        text, (Column(text, lambda row: row["name"]),), [{"name": text}], [text], [(text, text)]
    )
    curve = MeanCurve(1, 1, (0.1, 0.2))
    in_short = BenchmarkInShort(
        title=text,
        lead=text,
        sentences=[text],
        open_points=[text],
        runs=[RunInShort(text, Interval(0.5, 0.4, 0.6, 0.95, text), links=[(text, link)])],
        chance=0.25,
        margin=0.02,
        method=text,
    )
    figure = AnalysisFigure(
        text,
        [CurveBlock(text, [CurvePanel(text, {}, {text: curve})])],
        [RoutePanel(text, 1, (1.0, 2.0))],
        [table],
        [(text, "data:image/webp;base64,x")],
        [text],
        [(text, text)],
    )
    return ReportContents(
        title=text,
        in_short=[in_short],
        analyses=[AnalysisSection("trace", text, text, [figure])],
        leaderboards=[table],
        comparisons=[table],
        warnings=[text],
        viewer=ViewerData([text, text], [question], [text]),
        policies=[PolicyDiagram(text, text, [(text, text, [1.0, 0.0])], [text], text)],
    )


def test_a_report_of_hostile_text_has_the_tags_of_a_harmless_one():
    evil, harmless = render_report(contents(EVIL)), render_report(contents("x"))
    assert not FORBIDDEN.search(evil)
    evil.encode()
    assert Page(evil).tags == Page(harmless).tags
    names = [[name for name, _ in Page(page).attributes] for page in (evil, harmless)]
    assert names[0] == names[1] and not any(name.startswith("on") for name in names[0])
    assert evil.count("<script") == 2 and evil.count("</script>") == 2


def test_a_report_asks_nothing_of_the_network():
    page = render_report(contents("x"))
    policy = re.search('http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    assert policy and policy[1].startswith("default-src 'none'; img-src data:;")
    # only the page's own script and style: an inline one that data brought in would not run
    for kind in ("style", "script"):
        (own,) = re.findall(f"<{kind}>(.*?)</{kind}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}';" in policy[1]
    assert not [
        value
        for name, value in Page(page).attributes
        if name in ("src", "href") and ":" in str(value) and not str(value).startswith("data:")
    ]


@given(st.text(max_size=40))
def test_script_json_is_json_without_an_end_of_the_tag(text):
    made = script_json({"text": [text]})
    assert not set("<>&\u2028\u2029") & set(made) and not FORBIDDEN.search(made)
    assert json.loads(made) == {"text": [visible_lines(text)]}


@given(st.text(st.characters(), max_size=40))
def test_visible_text_shows_and_harmless_text_is_left_alone(text):
    once = visible(text)
    assert not FORBIDDEN.search(once) and len(once.splitlines()) <= 1
    assert (
        visible(once)
        == once
        == visible(visible_lines(text)).replace("\n", "\\n").replace("\t", "\\t")
    )
    assert visible_lines("Grüße, 日本 😀 ± → e\u0301\n\tok") == "Grüße, 日本 😀 ± → e\u0301\n\tok"
    assert json.loads(visible_json(json.dumps([text], ensure_ascii=False))) == [text]


def test_errors_cannot_act_on_a_terminal():
    said = str(MapflowError(f"no model {EVIL}\n\x1b[31mline two"))
    assert not FORBIDDEN.search(said) and "\n" not in said and "owned" in said


def test_a_table_for_a_page_is_visible_too():
    assert not FORBIDDEN.search(html_table(TABLE))

"""The page in a browser: no errors, no requests, correct filters, hostile text that stays text.

Also on a phone, by keyboard, and with 10,000 questions. All tests share one browser and one page.
Without a browser, the text of the file is checked.
"""

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from mapflow.results.contract.visible_text import visible_lines
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
from mapflow.results.report.drawings import policy_svg, spans
from mapflow.results.report.page import HERE, script_json
from mapflow.results.statistics import Interval
from mapflow.results.tables.formats import Column, Table
from tests.results.browser import (
    DESKTOP,
    PHONE,
    accessibility_problems,
    chromium,
    set_screen,
    too_wide,
)

HOSTILE = (
    "</script><script>window.hurt = 1</script><img src=x onerror='window.hurt = 2'>"
    "<!-- &lt;b&gt; {{ 7 * 7 }} \u2028"
)


def a_jpeg():
    data = io.BytesIO()
    Image.new("RGB", (8, 6), "teal").save(data, "JPEG")
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"


PIXEL = a_jpeg()
N = 10_000
TASKS = ("t_one", "t_two", "t_three")
LONG = "a_task_whose_name_is_far_longer_than_a_telephone_is_wide_" * 3


def a_table(title="Leaderboard"):
    columns = (
        Column("model", lambda r: r["model"], right=False),
        Column("n", lambda r: str(r["n"])),
    )
    return Table(title, columns, [{"model": HOSTILE, "n": 3}], [HOSTILE], [("model", HOSTILE)])


def flips_table():
    """Counts by subtask, as `subtask_table` names them."""
    names = ("treatment", "subtask", "lost", "gained", "difference")
    columns = [
        Column(name, lambda r, name=name: str(r[name]), right=name not in names[:2])
        for name in names
    ]
    rows = [
        {"treatment": "effective", "baseline": "full", "subtask": task, "lost": n, "gained": 0}
        | {"difference": difference}
        for task, n, difference in zip(TASKS, (7, 12, 9), ("−0.3", "+12.0", "–"), strict=True)
    ]
    return Table("By subtask", columns, rows)


def in_short():
    links = [
        ("3 lost", questions_link(baseline="full", treatment="effective", flips="lost")),
        ("5 wrong", questions_link(baseline="full", treatment="full", answer="wrong")),
    ]
    return BenchmarkInShort(
        title=f"Title {HOSTILE}",
        lead=HOSTILE,
        sentences=[HOSTILE],
        open_points=[HOSTILE],
        runs=[
            RunInShort("full", Interval(0.8, 0.7, 0.9, 0.95, ""), verdict="baseline"),
            RunInShort(
                "effective",
                Interval(0.6, 0.5, 0.7, 0.95, ""),
                Interval(-0.2, -0.3, -0.1, 0.95, ""),
                "worse",
                links,
            ),
        ],
        chance=0.5,
        margin=0.02,
        method=HOSTILE,
    )


def an_analysis():
    curve = MeanCurve(4, 3, (0.1, 0.4, 0.2), (0.05, 0.3, 0.1), (0.2, 0.5, 0.3))
    block = CurveBlock(HOSTILE, [CurvePanel(HOSTILE, {}, {HOSTILE: curve, "other": curve})])
    route = RoutePanel(HOSTILE, 9, (-10, 5), (-20, -5), (0, 10), (True, False))
    figure = AnalysisFigure(
        HOSTILE,
        [block],
        [route],
        [a_table("Numbers")],
        [(HOSTILE, PIXEL)],
        [HOSTILE],
        [(HOSTILE, HOSTILE)],
    )
    return AnalysisSection("trace", "Traces", HOSTILE, [figure])


def contents(questions, runs=("full", "effective"), **changes):
    fields = {
        "title": f"Title {HOSTILE}",
        "leaderboards": [a_table()],
        "viewer": ViewerData(runs, questions, [HOSTILE]),
        "in_short": [in_short()],
        "comparisons": [a_table("Comparisons with the baseline"), flips_table()],
        "warnings": [HOSTILE],
        "policies": [
            PolicyDiagram(HOSTILE, HOSTILE, [(HOSTILE, "video", (0, 1, 0.5))], [HOSTILE], HOSTILE)
        ],
        "analyses": [an_analysis()],
    }
    return ReportContents(**(fields | changes))


def an_answer(correct, valid=True, error=None, **changes):
    if error:
        return Answer(None, None, None, None, error)
    probabilities = {"A": 0.7, "B": 0.3} | changes
    return Answer("A" if correct else "B", bool(correct), valid, probabilities, None)


@pytest.fixture(scope="module")
def outcomes():
    """correct[run, question], and the questions that failed or named no option in run 1."""
    rng = np.random.default_rng(0)
    return rng.random((2, N)) < [[0.8], [0.6]], rng.random(N) < 0.01, rng.random(N) < 0.02


@pytest.fixture(scope="module")
def page(tmp_path_factory, outcomes):
    correct, failed, invalid = outcomes
    questions = []
    for i in range(N):
        answers = [
            an_answer(correct[0, i]),
            an_answer(correct[1, i], valid=not invalid[i], error="no video" if failed[i] else None),
        ]
        stem, options = (
            (HOSTILE, [HOSTILE, "two"])
            if i == 5
            else (f"Where does shape {i} go?", ["left", "right"])
        )
        frames = [PIXEL] * 2 if i < 4 else ["https://example.org/a.jpg"] if i == 5 else []
        task = HOSTILE if i == 5 else LONG if i == 8 else TASKS[i % 3]
        questions.append(
            ViewedQuestion(f"b/{i:05d}", task, f"v{i}.mp4", "A", answers, stem, options, frames)
        )
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render_report(contents(questions)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def driver(page):
    with chromium() as driver:
        set_screen(driver)
        driver.get(page.as_uri())
        yield driver


@pytest.fixture(autouse=True)
def unfiltered(request, page):
    """Every test in the browser begins with all questions, by id, on a desktop."""
    if "driver" in request.fixturenames:
        driver = request.getfixturevalue("driver")
        set_screen(driver)
        if not driver.current_url.startswith(page.as_uri()):
            driver.get(page.as_uri())
        open_hash(driver, "#questions?sort=id")


def open_hash(driver, text):
    """Opens another address within the page, as a link does."""
    driver.execute_async_script(
        "const done = arguments[1]; if (location.hash === arguments[0]) return done();"
        "window.addEventListener('hashchange', () => done(), { once: true });"
        "location.hash = arguments[0];",
        text,
    )


def chosen(driver):
    return driver.find_element("css selector", "#detail h3").text


def choose(driver, name, value):
    script = (
        "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
        " e.dispatchEvent(new Event('input', { bubbles: true }));"
    )
    driver.execute_script(script, name, value)


def count(driver):
    return int(driver.find_element("id", "count").text.split()[0].replace(",", ""))


def reset(driver):
    open_hash(driver, "#questions?")
    open_hash(driver, "#questions?sort=id")


def test_it_opens_without_console_errors_and_asks_nothing_of_the_network(driver):
    assert driver.execute_script("return document.documentElement.dataset.ready") == "yes"
    for row in range(6):  # rows are drawn anew by every click; the sixth names an image elsewhere
        driver.execute_script("document.querySelectorAll('.row')[arguments[0]].click()", row)
    assert [
        entry for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")
    ] == []
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    asked = [
        m["params"]["request"]["url"]
        for m in messages
        if m["method"] == "Network.requestWillBeSent"
    ]
    assert asked and all(url.startswith(("file:", "data:")) for url in asked)


def test_hostile_text_is_shown_and_never_run(driver):
    reset(driver)
    choose(driver, "search", "b/00005")
    assert count(driver) == 1
    driver.find_element("css selector", ".row").click()
    shown = driver.execute_script("return document.getElementById('detail').textContent")
    assert "</script><script>window.hurt = 1</script>" in shown
    assert driver.execute_script("return window.hurt") is None
    assert (
        driver.execute_script(
            "return document.querySelectorAll('img[src=x], #detail script, #detail b').length"
        )
        == 0
    )
    assert driver.execute_script("return document.querySelectorAll('#detail img').length") == 0, (
        "a foreign image"
    )
    assert driver.execute_script("return document.scripts.length") == 2
    assert "{{ 7 * 7 }}" in driver.title


@pytest.mark.parametrize("flips", ["any", "lost", "gained", "both", "neither"])
def test_flips_are_counted_among_the_questions_that_both_could_ask(driver, outcomes, flips):
    (before, after), failed, _ = outcomes
    expected = {
        "any": before != after,
        "lost": before & ~after,
        "gained": ~before & after,
        "both": before & after,
        "neither": ~before & ~after,
    }[flips]
    reset(driver)
    choose(driver, "flips", flips)
    assert count(driver) == int((expected & ~failed).sum())


def test_answers_and_tasks_are_filtered_together(driver, outcomes):
    (before, after), failed, invalid = outcomes
    task = np.arange(N) % 3
    task[[5, 8]] = -1
    for answer, of_run in (
        ("right", after & ~failed),
        ("wrong", ~after & ~failed),
        ("invalid", invalid & ~failed),
        ("error", failed),
    ):
        reset(driver)
        choose(driver, "answer", answer)
        assert count(driver) == int(of_run.sum()), answer
        choose(driver, "task", "t_two")
        assert count(driver) == int((of_run & (task == 1)).sum()), answer
    reset(driver)
    choose(driver, "treatment", "0")
    choose(driver, "answer", "right")
    assert count(driver) == int(before.sum())


def test_frames_options_and_probabilities_are_shown(driver):
    reset(driver)
    choose(driver, "search", "shape 3 go")
    driver.find_element("css selector", ".row").click()
    sizes = driver.execute_script(
        "return [...document.querySelectorAll('#detail img')].map((one) => one.naturalWidth)"
    )
    assert sizes == [8, 8]
    text = driver.find_element("id", "detail").text
    assert "left" in text and "70.0 %" in text and "30.0 %" in text and "v3.mp4" in text
    driver.execute_script(
        "const e = document.getElementById('pictured'); e.checked = true;"
        " e.dispatchEvent(new Event('input', { bubbles: true }))"
    )
    choose(driver, "search", "")
    assert count(driver) == 5
    driver.execute_script(
        "const e = document.getElementById('pictured'); e.checked = false;"
        " e.dispatchEvent(new Event('input', { bubbles: true }))"
    )


def test_ten_thousand_questions_are_fast_and_few_rows_exist(driver):
    reset(driver)
    assert count(driver) == N
    assert driver.execute_script("return document.querySelectorAll('.row').length") < 80
    took = driver.execute_script(
        "const e = document.getElementById('flips'), start = performance.now();"
        "for (const value of ['lost', 'gained', 'all'])"
        " { e.value = value; e.dispatchEvent(new Event('input', { bubbles: true })); }"
        "return (performance.now() - start) / 3"
    )
    assert took < 500, f"a filter takes {took:.0f} ms"
    last = driver.execute_async_script(
        "const done = arguments[0], list = document.getElementById('list');"
        " list.scrollTop = list.scrollHeight;"
        "setTimeout(() => { const rows = document.querySelectorAll('.row');"
        "done([rows[rows.length - 1].textContent, rows.length]); }, 300)"
    )
    assert f"b/{N - 1:05d}" in last[0] and last[1] < 80


def test_arrow_keys_walk_through_the_list(driver):
    from selenium.webdriver.common.keys import Keys

    reset(driver)
    choose(driver, "search", "b/0000")
    rows = driver.find_elements("css selector", ".row")
    rows[0].click()
    driver.find_element("id", "list").send_keys(Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    assert chosen(driver) == "b/00002"


def test_home_end_and_pages_choose_and_scroll(driver):
    from selenium.webdriver.common.keys import Keys

    reset(driver)
    box = driver.find_element("id", "list")
    for key, expected in (
        (Keys.END, N - 1),
        (Keys.HOME, 0),
        (Keys.PAGE_DOWN, None),
        (Keys.PAGE_UP, 0),
        (Keys.ARROW_UP, 0),
    ):
        box.send_keys(key)
        selected = driver.find_element("css selector", ".row[aria-selected=true]")
        assert box.get_attribute("aria-activedescendant") == selected.get_attribute("id")
        inside = driver.execute_script(
            "const list = arguments[0].getBoundingClientRect(),"
            " row = arguments[1].getBoundingClientRect();"
            "return row.top >= list.top && row.bottom <= list.bottom + 1",
            box,
            selected,
        )
        assert inside, key
        place = int(chosen(driver).partition("/")[2])
        assert place == expected if expected is not None else 5 < place < 40
        assert f"question=b%2F{place:05d}" in driver.current_url


def test_flipped_questions_come_first_then_wrong_failed_and_right(driver, outcomes):
    (before, after), failed, _ = outcomes
    rank = np.where(failed, 2, np.where(before != after, 0, np.where(after, 3, 1)))
    pictured = np.arange(N) < 4
    expected = sorted(range(N), key=lambda i: (rank[i], not (pictured[i] or i == 5), i))
    choose(driver, "sort", "useful")
    assert chosen(driver) == f"b/{expected[0]:05d}"
    shown = driver.find_elements("css selector", ".row .id")
    assert [one.text[:7] for one in shown[:20]] == [f"b/{i:05d}" for i in expected[:20]]


def test_a_click_on_the_first_screen_or_in_a_table_shows_the_questions(driver, outcomes):
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    (before, after), failed, _ = outcomes
    driver.find_element("link text", "5 wrong").send_keys(Keys.ENTER)
    WebDriverWait(driver, 5).until(
        lambda d: d.switch_to.active_element.get_attribute("id") == "list"
    )
    assert count(driver) == int((~before).sum())
    assert driver.execute_script("return document.getElementById('treatment').value") == "0"
    driver.find_element("link text", "12").click()
    lost = before & ~after & ~failed & (np.arange(N) % 3 == 1)
    assert count(driver) == int(lost.sum())
    assert driver.execute_script("return document.getElementById('task').value") == "t_two"


def test_the_address_holds_the_view_and_back_returns_to_the_one_before(driver, outcomes, page):
    (before, after), failed, _ = outcomes
    lost, gained = (int((a & ~b & ~failed).sum()) for a, b in ((before, after), (after, before)))
    reset(driver)
    choose(driver, "flips", "lost")
    choose(driver, "flips", "gained")
    assert count(driver) == gained
    driver.back()
    assert count(driver) == lost and driver.current_url.endswith("#questions?flips=lost&sort=id")
    driver.back()
    assert count(driver) == N
    driver.forward()
    driver.find_elements("css selector", ".row")[3].click()
    shared, question = driver.current_url, chosen(driver)
    driver.get("about:blank")
    driver.get(shared)
    assert (count(driver), chosen(driver)) == (lost, question)
    open_hash(driver, "#questions?baseline=no+such+run&flips=sideways&task=%F0&question=none")
    assert count(driver) == N and chosen(driver)


def test_names_of_any_signs_are_filters_in_an_address(driver, tmp_path):
    names = [HOSTILE, "a&b=c+d #?%41", "\x1b[2J\u202e\ud800 ü", "cut video->last"]
    questions = [
        ViewedQuestion(f"q{i}", name, "v", "A", [an_answer(i != k) for k in range(4)])
        for i, name in enumerate(names)
    ]
    path = tmp_path / "names.html"
    path.write_text(render_report(contents(questions, runs=names)), encoding="utf-8")
    for k, name in enumerate(names):
        link = questions_link(baseline=name, treatment=name, answer="wrong")
        driver.get(f"{path.as_uri()}{link}")
        assert (chosen(driver), count(driver)) == (f"q{k}", 1)
        driver.get("about:blank")
        driver.get(f"{path.as_uri()}{questions_link(task=name)}")
        assert (chosen(driver), count(driver)) == (f"q{k}", 1)
        driver.get("about:blank")


def test_tables_sort_by_a_click_on_a_heading_and_say_so(driver):
    table = driver.find_element("css selector", "#comparisons .scroll:last-of-type table")

    def column(place):
        return [
            row.find_elements("css selector", "th, td")[place].text
            for row in table.find_elements("css selector", "tbody tr")
        ]

    heads = table.find_elements("css selector", "thead th")
    assert all(one.get_attribute("scope") == "col" for one in heads)
    original = column(1)
    sorts = []
    for _ in range(3):
        heads[4].find_element("tag name", "button").click()
        sorts.append((heads[4].get_attribute("aria-sort"), column(4)))
    assert sorts == [
        ("descending", ["+12.0", "−0.3", "–"]),
        ("ascending", ["−0.3", "+12.0", "–"]),
        (None, ["−0.3", "+12.0", "–"]),
    ]
    assert column(1) == original
    heads[1].find_element("tag name", "button").send_keys("\n")
    assert heads[1].get_attribute("aria-sort") == "ascending"
    assert column(1) == sorted(TASKS)


def test_the_head_of_a_table_stays_while_its_rows_scroll(driver):
    moved = driver.execute_script("""
        const box = document.querySelector("#comparisons .scroll:last-of-type");
        const top = (selector) => box.querySelector(selector).getBoundingClientRect().top;
        box.style.maxHeight = "5rem";
        const before = [top("thead th"), top("tbody td")];
        box.scrollTop = 30;
        const after = [top("thead th"), top("tbody td")];
        box.style.maxHeight = "";
        return before.map((place, k) => Math.round(place - after[k]));
    """)
    assert moved == [0, 30]


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_nothing_reaches_beyond_the_screen(driver, size):
    set_screen(driver, size)
    driver.execute_script("document.querySelectorAll('details').forEach((d) => d.open = true)")
    for search in ("b/00005", "b/00008", "b/00003"):  # hostile text, a long task, frames
        choose(driver, "search", search)
        assert chosen(driver) == search
        assert too_wide(driver) == []
        assert driver.execute_script("return document.documentElement.scrollWidth") == size[0]
        heads = driver.find_elements("css selector", "#detail thead th")
        assert min(head.size["width"] for head in heads) >= 160  # holds "random:seed=0"
        assert driver.find_element("id", "detail").size["width"] >= min(size[0], 600) * 0.8


@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_nothing(driver, dark):
    set_screen(driver, PHONE if dark else DESKTOP, dark)
    driver.execute_script("document.querySelectorAll('details').forEach((d) => d.open = true)")
    assert accessibility_problems(driver) == []


def test_colours_are_told_apart_from_both_backgrounds():
    """Contrast as WCAG 2 defines it; axe-core does not look at drawings."""

    def luminance(colour):
        shares = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    def contrast(one, other):
        low, high = sorted((luminance(one), luminance(other)))
        return (high + 0.05) / (low + 0.05)

    style = (HERE / "style.css").read_text()
    themes = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    assert len(themes) == 2
    for theme in themes:
        colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", theme))
        for name, colour in colours.items():
            least = 0 if name in ("page", "raised", "line") else 3
            if name in ("text", "quiet", "accent", "right", "wrong", "open"):
                least = 4.5
            for ground in ("page", "raised"):
                assert contrast(colour, colours[ground]) >= least, (name, colour, ground)


def test_every_drawing_has_a_text_alternative(driver):
    bare = driver.execute_script(
        "return [...document.querySelectorAll('svg')].filter((one) =>"
        " one.getAttribute('aria-hidden') !== 'true' &&"
        " !(one.getAttribute('role') === 'img' && one.querySelector(':scope > title')?.textContent)"
        ").map((one) => one.outerHTML)"
    )
    assert bare == []


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_the_file_holds_no_address_and_no_tag_from_data(page):
    tags = Tags()
    tags.feed(page.read_text(encoding="utf-8"))
    assert sum(tag == "script" for tag, _ in tags.found) == 2
    for tag, attributes in tags.found:
        assert not any(name.startswith("on") for name in attributes), tag
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("#", "data:"))
        assert "style" not in attributes, "the content security policy blocks it"
    assert ("meta", "default-src 'none'") in [
        (tag, a.get("content", "")[:18]) for tag, a in tags.found
    ]


def test_json_in_a_script_tag_comes_back_and_cannot_end_it():
    text = script_json({"x": HOSTILE})
    assert not re.search("[<>&\u2028]", text)
    assert json.loads(text) == {"x": visible_lines(HOSTILE)}
    with pytest.raises(ValueError):
        script_json({"x": float("nan")})


def test_sections_without_content_are_left_out():
    sections = ("in_short", "leaderboards", "comparisons", "policies", "analyses")
    text = render_report(contents([], **{section: [] for section in sections}))
    for name in ("in-short", "leaderboard", "comparisons", "trace", "policies", "questions"):
        assert f'id="{name}"' not in text


def test_spans_are_stretches_of_one_share():
    assert list(spans((0, 1, 1, 0.5, 0, 1))) == [(1, 2, 1), (3, 3, 0.5), (5, 5, 1)]
    assert list(spans((0, 0))) == [] and policy_svg(PolicyDiagram("random", "random")) == ""

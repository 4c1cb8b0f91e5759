"""The page in a browser: no errors, no requests, correct filters, hostile text that stays text.

Also with 10,000 questions. Without a browser, the text of the file is checked.
"""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from mapflow.results.contract.visible_text import visible_lines
from mapflow.results.figures import PolicyDiagram
from mapflow.results.report import (
    Answer,
    ReportContents,
    ViewedQuestion,
    ViewerData,
    render_report,
)
from mapflow.results.report.drawings import policy_svg, spans
from mapflow.results.report.page import script_json
from mapflow.results.tables.formats import Column, Table
from tests.results.browser import chromium

HOSTILE = (
    "</script><script>window.hurt = 1</script><img src=x onerror='window.hurt = 2'>"
    "<!-- &lt;b&gt; {{ 7 * 7 }} \u2028"
)
PIXEL = (
    "data:image/jpeg;base64,/9j/4AAQSkZJRgABAQEASABIAAD/2wBDAP"
    f"{'/' * 86}"
    "wgALCAABAAEBAREA/8QAFBABAAAAAAAAAAAAAAAAAAAAAP/aAAgBAQABPxA="
)
N = 10_000
TASKS = ("t_one", "t_two", "t_three")


def a_table(title="Leaderboard"):
    columns = (
        Column("model", lambda r: r["model"], right=False),
        Column("n", lambda r: str(r["n"])),
    )
    return Table(title, columns, [{"model": HOSTILE, "n": 3}], [HOSTILE], [("model", HOSTILE)])


def contents(questions, runs=("full", "effective"), **changes):
    fields = {
        "title": f"Title {HOSTILE}",
        "leaderboards": [a_table()],
        "viewer": ViewerData(runs, questions, [HOSTILE]),
        "comparisons": [a_table("Comparisons with the baseline")],
        "warnings": [HOSTILE],
        "policies": [
            PolicyDiagram(HOSTILE, HOSTILE, [(HOSTILE, "video", (0, 1, 0.5))], [HOSTILE], HOSTILE)
        ],
        "sweeps": [],
    }
    return ReportContents(**(fields | changes))


def an_answer(correct, valid=True, error=None, **changes):
    if error:
        return Answer(None, None, None, None, error)
    return Answer("A" if correct else "B", bool(correct), valid, {"A": 0.7, "B": 0.3}, None)


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
        task = HOSTILE if i == 5 else TASKS[i % 3]
        questions.append(
            ViewedQuestion(f"b/{i:05d}", task, f"v{i}.mp4", "A", answers, stem, options, frames)
        )
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render_report(contents(questions)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def driver(page):
    with chromium() as driver:
        driver.get(page.as_uri())
        yield driver


def choose(driver, name, value):
    script = (
        "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
        " e.dispatchEvent(new Event('input'));"
    )
    driver.execute_script(script, name, value)


def count(driver):
    return int(driver.find_element("id", "count").text.split()[0].replace(",", ""))


def reset(driver):
    for name, value in (
        ("baseline", "0"),
        ("treatment", "1"),
        ("flips", "all"),
        ("answer", "all"),
        ("task", ""),
        ("search", ""),
    ):
        choose(driver, name, value)


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
    task[5] = -1
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
    images = driver.find_elements("css selector", "#detail img")
    assert len(images) == 2
    text = driver.find_element("id", "detail").text
    assert "left" in text and "70.0 %" in text and "30.0 %" in text and "v3.mp4" in text
    driver.execute_script(
        "const e = document.getElementById('pictured'); e.checked = true;"
        " e.dispatchEvent(new Event('input'))"
    )
    choose(driver, "search", "")
    assert count(driver) == 5
    driver.execute_script(
        "const e = document.getElementById('pictured'); e.checked = false;"
        " e.dispatchEvent(new Event('input'))"
    )


def test_ten_thousand_questions_are_fast_and_few_rows_exist(driver):
    reset(driver)
    assert count(driver) == N
    assert driver.execute_script("return document.querySelectorAll('.row').length") < 80
    took = driver.execute_script(
        "const e = document.getElementById('flips'), start = performance.now();"
        "for (const value of ['lost', 'gained', 'all'])"
        " { e.value = value; e.dispatchEvent(new Event('input')); }"
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
    assert driver.find_element("css selector", "#detail h3").text == "b/00002"


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
    text = render_report(contents([], leaderboards=[], comparisons=[], policies=[], sweeps=[]))
    for name in ("leaderboard", "comparisons", "sweeps", "policies"):
        assert f'id="{name}"' not in text


def test_spans_are_stretches_of_one_share():
    assert list(spans((0, 1, 1, 0.5, 0, 1))) == [(1, 2, 1), (3, 3, 0.5), (5, 5, 1)]
    assert list(spans((0, 0))) == [] and policy_svg(PolicyDiagram("random", "random")) == ""

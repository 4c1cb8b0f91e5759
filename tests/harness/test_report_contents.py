"""What a report shows of runs and analyses: its first screen, curves and order of questions."""

import base64
import io
import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mapflow.harness.analyses.registry import analyses_in
from mapflow.harness.cli.main import main
from mapflow.harness.reporting.analyses import analysis_sections
from mapflow.harness.reporting.contents import report_contents
from mapflow.harness.reporting.viewer import most_useful
from mapflow.model_adapters.progress import steps
from mapflow.results.figures import answer_rows, attention_rows, lens_rows
from mapflow.results.figures.answer_curves import answer_panels
from mapflow.results.figures.attention_curves import attention_panels
from mapflow.results.report import render_report
from mapflow.results.report.curves import block_top
from mapflow.results.report.forest import TICKS, scale_for
from mapflow.results.runs.folder import RunFolder
from mapflow.results.runs.run import read_runs
from mapflow.results.statistics import accuracy
from tests.results.records import a_record
from tests.results.run_folders import answers, write_run
from tests.results.test_figures_curves import maps, readings, traces

QUESTIONS = "motion/count/{:04d}"


def contents_of(runs=(), analyses=(), **changes):
    chosen = {"title": "t", "baseline": None, "margin": 0.02, "intersect": False, "data": None}
    return report_contents(runs, analyses, **(chosen | {"n_pictured": 0} | changes))


@pytest.fixture
def three_runs(tmp_path):
    full = answers("full", [1] * 30 + [0] * 10, question_id=QUESTIONS)
    worse = answers("worse", [0] * 20 + [1] * 11 + [0] * 9, question_id=QUESTIONS)
    broken = answers("broken", [1] * 30 + [0] * 8 + [None] * 2, question_id=QUESTIONS)
    return write_run(tmp_path / "run", [*full, *worse, *broken])


def test_the_first_screen_has_the_numbers_of_compare_and_links_to_the_questions(three_runs):
    contents = contents_of(read_runs(three_runs))
    (shown,) = contents.in_short
    assert "40 questions about 20 videos" in shown.lead and "3 runs" in shown.lead
    comparison = contents.comparisons[0]
    assert shown.sentences == [
        comparison.notes[0],
        comparison.notes[1].replace("it is", "It is"),
    ]
    assert shown.sentences[0].startswith("worse is significantly worse than full on motion")
    full, worse, broken = shown.runs
    runs = {run.intervention: run for run in read_runs(three_runs)}
    for row in shown.runs:
        run = runs[row.name]
        assert row.accuracy == accuracy(run.correct[~run.failed], run.cluster)
    assert (full.verdict, full.difference) == ("baseline", None)
    assert (worse.verdict, broken.verdict) == ("worse", "inconclusive")
    row = comparison.rows[0]
    assert worse.difference is not None
    assert (worse.difference.estimate, worse.difference.low) == (row["difference"], row["low"])
    assert full.links == [("10 wrong", "#questions?baseline=full&treatment=full&answer=wrong")]
    assert worse.links[:2] == [
        ("20 lost", "#questions?baseline=full&treatment=worse&flips=lost"),
        ("1 gained", "#questions?baseline=full&treatment=worse&flips=gained"),
    ]
    assert [text for text, _ in broken.links] == ["8 wrong", "2 failed"]
    assert any("broken: 2 questions failed in one run or the other" in s for s in shown.open_points)
    (power,) = [said for said in shown.open_points if said.startswith("Whether broken loses more")]
    assert "points: a change of" in power and "80 % power" in power
    assert shown.chance == 0.25


def test_a_single_run_is_described_and_nothing_is_claimed(tmp_path):
    run = write_run(tmp_path / "run", answers("full", [1, 1, 0, 0], question_id=QUESTIONS))
    (shown,) = contents_of(read_runs(run)).in_short
    assert shown.sentences == [
        "full answers 50.0 % of 4 questions right, 95 % CI"
        f" {100 * shown.runs[0].accuracy.low:.1f}…{100 * shown.runs[0].accuracy.high:.1f}."
    ]
    assert "full is the only run" in shown.open_points[0]
    assert any("does more than guess" in point for point in shown.open_points)
    assert shown.runs[0].verdict == "" and shown.runs[0].links[0][0] == "2 wrong"
    assert render_report(contents_of(read_runs(run))).count('class="estimate"') == 1


def test_questions_about_one_video_have_no_interval(tmp_path):
    records = answers("full", [1, 1, 0, 0], question_id=QUESTIONS, video_id="one.mp4")
    (shown,) = contents_of(read_runs(write_run(tmp_path / "run", records))).in_short
    assert shown.sentences == [
        "full answers 50.0 % of 4 questions right, 95 % CI none, as all questions are about one"
        " video."
    ]


@given(st.lists(st.floats(-1, 1, allow_nan=False), min_size=1, max_size=8))
def test_an_axis_holds_its_values_between_round_ticks(values):
    scale = scale_for(values)
    assert scale.low <= min(values) + 1e-6 and scale.high >= max(values) - 1e-6
    assert 2 <= len(scale.ticks) <= TICKS and len(set(scale.ticks)) == len(scale.ticks)
    assert (scale.ticks[0], scale.ticks[-1]) == (scale.low, scale.high)
    assert np.ptp(np.diff(scale.ticks)) < 1e-5
    assert scale(scale.low) == pytest.approx(5) and scale(scale.high) == pytest.approx(95)


def one_by_one(records):
    """`most_useful` by its definition, comparison by comparison."""

    def rank(before, after):
        if after is None:
            return 4
        if after.correct is None:
            return 2
        if before is not None and before.correct not in (None, after.correct):
            return 0
        return 3 if after.correct else 1

    n_runs = len(next(iter(records.values())))
    lists = []
    for run in range(1, n_runs) if n_runs > 1 else [0]:
        keyed = []
        for name, own in records.items():
            margin = (
                float("inf") if own[run] is None or own[run].margin is None else own[run].margin
            )
            keyed.append((rank(own[0], own[run]), 0 if own[run] is None else margin, name))
        lists.append([name for *_, name in sorted(keyed)])
    found = []
    for place in range(len(records)):
        for one in lists:
            if one[place] not in found:
                found.append(one[place])
    return found


@pytest.mark.parametrize("n_runs", [1, 2, 4])
def test_the_most_useful_questions_come_first(n_runs):
    rng = np.random.default_rng(n_runs)
    records = {}
    for i in range(60):
        own = []
        for _ in range(n_runs):
            kind = rng.choice(["right", "wrong", "failed", "absent"], p=[0.6, 0.2, 0.1, 0.1])
            changes = {
                "right": {"correct": True, "margin": float(rng.random())},
                "wrong": {"correct": False, "margin": None if i % 7 else 0.0},
                "failed": {"correct": None, "margin": None, "error": "no video"},
            }.get(kind)
            own.append(None if changes is None else a_record(i, **changes))
        if any(own):
            records[f"q{i:02d}"] = own
    assert most_useful(records) == one_by_one(records)
    assert most_useful({}) == []


def analysis_folder(place: Path, kind, records):
    run = RunFolder(place, {"checkpoint": "traced", "topk": 2}, {"device": "cpu"}, kind)
    run.append(records)
    return place


@pytest.fixture
def folders(tmp_path):
    made = {"trace": traces(), "lens": readings(), "attention": maps()}
    return [
        (name, analysis_folder(tmp_path / name, type(records[0]), records))
        for name, records in made.items()
    ]


def test_traces_lenses_and_attention_are_drawn_with_the_figures_numbers(folders):
    sections = {one.name: one for one in analysis_sections(folders)}
    assert list(sections) == ["trace", "lens", "attention"]
    rows = {
        "trace": answer_rows(answer_panels(traces())),
        "lens": None,
        "attention": attention_rows(attention_panels(maps())),
    }
    for name, section in sections.items():
        (figure,) = section.figures
        panels = [panel for block in figure.blocks for panel in block.panels]
        if name == "lens":
            rows[name] = lens_rows(panels)
        means = [mean for panel in panels for one in panel.curves.values() for mean in one.mean]
        assert sorted(means) == sorted(row["mean"] for row in rows[name])
        shown = [
            float(cell.split()[0]) / 100
            for table in figure.tables
            for row in table.rows
            for title, cell in row.items()
            if title != "layer"
        ]
        assert sorted(shown) == pytest.approx(sorted(means), abs=0.0006)
    text = render_report(contents_of(analyses=folders))
    n_curves = sum(
        len(panel.curves)
        for section in sections.values()
        for figure in section.figures
        for block in figure.blocks
        for panel in block.panels
    )
    drawn = re.findall(r'<polyline points="[^"]+" class="curve[^>]*><title>', text)
    assert len(drawn) == n_curves
    assert 'id="leaderboard"' not in text and 'id="questions"' not in text


def test_the_first_drawings_on_frames_are_shown(folders):
    overlays = folders[2][1] / "overlays"
    overlays.mkdir()
    pixels = np.zeros((40, 60, 3), np.uint8)
    for number in range(6):
        pixels[:] = 40 * number
        Image.fromarray(pixels).save(overlays / f"q{number}_attention.png")
    (overlays / "q1_attention.png").write_bytes(b"not a picture")
    (figure,) = next(analysis_sections(folders[2:])).figures
    shown = [alternative.split(": ")[1] for alternative, _ in figure.pictures]
    assert shown == ["q0_attention", "q2_attention", "q3_attention"]
    data = base64.b64decode(figure.pictures[1][1].removeprefix("data:image/webp;base64,"))
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (60, 40) and abs(image.convert("L").getpixel((9, 9)) - 80) < 3
    assert figure.notes[0].startswith("q1_attention.png cannot be shown: ")
    assert figure.notes[1].startswith("4 of 6 drawings on frames are shown")
    assert render_report(contents_of(analyses=folders)).count('src="data:image/webp') == 3


def test_an_axis_of_curves_ends_at_a_round_number_above_them(folders):
    for section in analysis_sections(folders):
        for block in section.figures[0].blocks:
            curves = [one for panel in block.panels for one in panel.curves.values()]
            most = max(value for one in curves for value in (*one.mean, *one.high))
            assert most <= block_top(block) * 1.00001 <= max(2.001 * most, 0.0101)


def test_a_discovery_is_its_table_and_its_sweeps(tmp_path):
    found = {
        "model": "tiny",
        "samples": "correct",
        "questions": 9,
        "questions_asked": 10,
        "found": [
            {
                "rule": "paper",
                "threshold": -5.0,
                "ranges": {"cross_frame": "1-6", "video_to_question": None},
                "accuracy_full": 0.9,
                "difference": [-0.1, -0.2, 0.05],
                "verdict": "inconclusive",
            },
            {"rule": "marginal", "threshold": -2.0, "ranges": {}, "difference": None},
        ],
    }
    (tmp_path / "discovery.json").write_text(json.dumps(found))
    assert analyses_in(tmp_path) == ["discover"]
    (section,) = analysis_sections([("discover", tmp_path)])
    (table,) = section.figures[0].tables
    cells = [[column.show(row) for column in table.columns] for row in table.rows]
    heads = [column.head for column in table.columns]
    first, second = (dict(zip(heads, row, strict=True)) for row in cells)
    assert (first["cross frame"], first["video to question"]) == ("1-6", "–")
    assert (first["difference"], first["95 % CI"]) == ("−10.0", "−20.0…+5.0")
    assert (second["difference"], second["verdict"]) == ("–", "–")
    assert "9 of 10 questions (correct)" in section.figures[0].notes[0]


def test_long_work_shows_a_bar_and_quick_work_does_not(capsys):
    with steps("report", 3, patience=5) as step:
        step("quick", 1)
    assert capsys.readouterr().err == ""
    with steps("report", 3, patience=0.05) as step:
        step("reading", 1)
        time.sleep(0.3)
    assert "reading" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "'nowhere' does not exist"),
        (["file.txt"], "'file.txt' holds no records.jsonl"),
        (["folder"], "'folder' holds no records.jsonl"),
        (["empty"], "'empty' holds no answers yet"),
        (["nothing"], "'nothing' holds no records of a trace yet"),
        (["errors"], "'errors': no question could be traced"),
        (["run:nothing"], "'run' has no intervention 'nothing'"),
        (["run", "-o", "absent/report.html"], "'absent/report.html' cannot be written: its folder"),
        (["run", "-o", "folder"], "'folder' cannot be written: it is a folder"),
        (["run", "--frames", "some"], "'some' must be a whole number of at least 0"),
        (["run", "--frames", "-1"], "'-1' must be a whole number of at least 0"),
        (["run", "--margin", "nan"], "--margin nan must lie between 0 and 100"),
        (["run", "--data_dir", "absent"], "--data_dir 'absent' is not a folder"),
        (["found"], "discovery.json cannot be read (found[0] is 1: expected a mapping"),
    ],
)
def test_what_cannot_be_reported_is_refused_in_one_line(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("folder", "empty", "nothing", "found"):
        (tmp_path / name).mkdir()
    (tmp_path / "file.txt").write_text("text\n")
    (tmp_path / "empty/records.jsonl").touch()
    (tmp_path / "nothing/trace.jsonl").touch()
    (tmp_path / "found/discovery.json").write_text('{"found": [1]}')
    failed = [type(one).failed(_question(i), "full", "no video", norm=True, released=False,
              target="A") for i, one in enumerate(traces()[:2])]  # fmt: skip
    analysis_folder(tmp_path / "errors", type(failed[0]), failed)
    write_run(tmp_path / "run", answers("full", [1, 0], question_id=QUESTIONS))
    assert main(["report", *words]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and said in lines[0], lines


def _question(number):
    from mapflow.tasks.registry import load_questions

    return load_questions("mapflow_motion_count", limit=number + 1)[number]


@pytest.mark.parametrize("scores", [[1], [0], [1, 1]])
def test_one_or_two_questions_make_a_page(scores, tmp_path):
    runs = [*answers("full", scores, question_id=QUESTIONS)]
    runs += answers("cut", [1 - one for one in scores], question_id=QUESTIONS)
    folder = write_run(tmp_path / "run", runs)
    page = tmp_path / "report.html"
    assert main(["report", str(folder), f"{folder}/", "-o", str(page), "--data_dir", "."]) == 0
    text = page.read_text()
    assert 'id="in-short"' in text and 'id="questions"' in text
    assert f"answered {len(scores)} question" in text

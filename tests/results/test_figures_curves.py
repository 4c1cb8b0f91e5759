"""Curves of traces, lenses and attention: numbers against numpy, order, safe names."""

import csv
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest

from mapflow.harness.cli.main import main
from mapflow.results.contract.errors import MapflowError
from mapflow.results.figures import (
    answer_curves,
    answer_panels,
    answer_rows,
    attention_curves,
    attention_panels,
    attention_rows,
    lens_curves,
    lens_panels,
    lens_rows,
    save_figure,
)
from mapflow.results.figures.mean_curves import RESAMPLES, mean_curve
from mapflow.results.figures.panels import wrapped
from mapflow.results.records.attention import PARTS, AttentionRecord
from mapflow.results.records.lens import LensRecord, frequencies
from mapflow.results.records.record import Record
from mapflow.results.records.trace import TraceRecord
from mapflow.results.runs.folder import RunFolder

LAYERS = 5
LISTS = {"spatial": frozenset({"left"}), "_$time$": frozenset({"then"})}


def traces(norm: bool = True, names=("full", "keep:a->b")) -> list[TraceRecord]:
    rng = np.random.default_rng(int(norm))
    made = []
    for name in names:
        for i in range(9):
            p = rng.uniform(0, 0.3, (4, LAYERS)).tolist()
            false = ("B", "C") if i else ()  # one open question
            made.append(
                TraceRecord(
                    f"q{i}", f"v{i // 2}", "t", name, "paper", norm, False, "A", "A",
                    tuple(p[0]), tuple(p[1]), {"B": p[2], "C": p[3]}, false,
                )
            )  # fmt: skip
    return [
        *made,
        TraceRecord("x", "v", "t", names[0], "paper", norm, False, "A", error="unreadable"),
    ]


def readings() -> list[LensRecord]:
    """Prompts of two lengths: 4 and 6 video tokens with two words each."""
    rng = np.random.default_rng(3)
    words = {"0": " Left", "1": "then", "2": "x"}
    made = [
        LensRecord(
            f"q{i}", f"v{i % 4}", "t", name, "paper", False, (0,) * size,
            tuple(rng.integers(0, 3, (LAYERS, size, 2)).tolist()),
            tuple(np.full((LAYERS, size, 2), 0.5).tolist()), words,
        )
        for name in ("full", "_$a_b$") for i in range(8) for size in (4 + 2 * (i % 2),)
    ]  # fmt: skip
    return [*made, LensRecord("x", "v", "t", "full", "paper", False, error="unreadable")]


def slow_interval(values, videos, weights, confidence=0.95):
    """Videos drawn one by one. Quantiles widened for few videos (Hesterberg 2015)."""
    from scipy.stats import norm, t

    names = sorted(set(videos))
    rng = np.random.default_rng(99)
    means = []
    for _ in range(20_000):
        drawn = rng.choice(names, len(names))
        rows = [i for name in drawn for i, video in enumerate(videos) if video == name]
        means.append(np.average([values[i] for i in rows], weights=[weights[i] for i in rows]))
    m = len(names)
    tail = norm.cdf(np.sqrt(m / (m - 1)) * t.ppf((1 - confidence) / 2, m - 1))
    return np.quantile(means, [tail, 1 - tail])


def test_answer_rows_are_means_over_questions():
    records = traces()
    rows = answer_rows(answer_panels(records))
    own = [r for r in records if r.intervention == "keep:a->b" and r.error is None]
    expected = {
        "true option": np.mean([r.p_targets for r in own], axis=0),
        "base answer": np.mean([r.p_answers for r in own], axis=0),
        "mean false option": np.mean(
            [np.mean([r.p_options["B"], r.p_options["C"]], axis=0) for r in own[1:]], axis=0
        ),
    }
    for curve, mean in expected.items():
        found = [row for row in rows if (row["intervention"], row["curve"]) == ("keep:a->b", curve)]
        assert [row["layer"] for row in found] == list(range(1, LAYERS + 1))
        assert [row["mean"] for row in found] == pytest.approx(mean)
        assert {row["n"] for row in found} == {8 if "false" in curve else 9}
        assert all(row["low"] < row["mean"] < row["high"] for row in found)
        assert all(
            "pointwise 95 %" in row["interval"] and str(RESAMPLES) in row["interval"]
            for row in found
        )


def test_intervals_are_those_of_videos_drawn_one_by_one():
    rng = np.random.default_rng(5)
    videos = [f"v{i % 12}" for i in range(30)]
    values, weights = rng.uniform(0, 1, (30, 2)), rng.integers(1, 4, 30).tolist()
    curve = mean_curve(values, videos, weights)
    assert curve.mean == pytest.approx(np.average(values, axis=0, weights=weights))
    for layer in range(2):
        low, high = slow_interval(values[:, layer], videos, weights)
        assert (curve.low[layer], curve.high[layer]) == pytest.approx(
            (low, high), abs=0.1 * (high - low)
        )
    assert (curve.n, curve.n_videos) == (30, 12)


def test_one_video_has_curves_without_bands():
    curve = mean_curve(np.array([[0.1, 0.2], [0.3, 0.4]]), ["v", "v"])
    assert (
        curve.mean == pytest.approx((0.2, 0.3))
        and curve.low == ()
        and "one video" in curve.interval
    )
    assert curve.rows({"a": 1})[0]["low"] is None


def test_answers_have_a_panel_per_intervention_and_norm():
    found = answer_panels([*traces(True), *traces(False)], ["keep:a->b"])
    figure = answer_curves(found, "a $title$")
    assert [tuple(one.about.values()) for one in found] == [
        ("keep:a->b", True), ("full", True), ("keep:a->b", False), ("full", False),
    ]  # fmt: skip
    assert len(figure.axes) == 4
    assert figure.axes[0].get_gridspec().ncols == 2, "without final norm stands below with it"
    for panel, one in zip(figure.axes, found, strict=True):
        assert len(panel.lines) == len(panel.collections) == 3
        drawn = panel.lines[0].get_ydata()
        assert drawn == pytest.approx(100 * np.array(one.curves["true option"].mean))
        assert len({line.get_marker() for line in panel.lines}) == 3, "told apart without colour"
    assert figure.axes[2].get_title().replace("\n", " ") == "keep:a->b (without final norm)"


def test_lens_rows_are_shares_of_all_entries():
    records = readings()
    rows = lens_rows(lens_panels(records, LISTS))
    expected = {
        (title, one.intervention, one.layer): hits / one.entries
        for one in frequencies(records, ["full", "_$a_b$"], LISTS)
        for title, hits in one.hits.items()
    }
    assert {(r["words"], r["intervention"], r["layer"]): r["mean"] for r in rows} == pytest.approx(
        expected
    )
    assert all(row["low"] <= row["mean"] <= row["high"] for row in rows)


def test_names_are_drawn_as_they_are(tmp_path):
    found = lens_panels(readings(), LISTS)
    figure = lens_curves(found, "$\\frac$ <b>\x07")
    assert len(figure.axes) == len(LISTS) and all(len(panel.lines) == 2 for panel in figure.axes)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["full", "_$a_b$"]
    files = save_figure(figure, tmp_path / "f", lens_rows(found))
    text = "".join(ET.parse(files[1]).getroot().itertext())
    for name in ("_$time$ words", "_$a_b$", "$\\frac$ <b>\ufffd", "share of words at"):
        assert name in text


@pytest.mark.parametrize("text", ["a+b", "x" * 200, "video->question@6-15+" * 20, "", "a b c"])
def test_wrapped_titles_fit_and_lose_nothing_short(text):
    lines = wrapped(text).split("\n")
    assert len(lines) <= 3 and all(len(line) <= 34 for line in lines)
    if len(text) <= 34:
        assert lines == [text]


def test_what_cannot_be_averaged_is_refused():
    with pytest.raises(MapflowError, match="traced twice with final norm"):
        answer_panels([*traces(), *traces()])
    with pytest.raises(MapflowError, match="no question could be traced"):
        answer_panels(traces()[-1:])
    with pytest.raises(MapflowError, match="no question has lens results"):
        lens_panels(readings()[-1:], LISTS)
    short = TraceRecord("s", "v", "t", "full", "paper", True, False, "A", "A", (0.1,), (0.1,), {})
    with pytest.raises(MapflowError, match="records of 1 and 5 layers"):
        answer_panels([*traces(), short])


def maps(names=("full", "_$a_b$"), layers=LAYERS) -> list[AttentionRecord]:
    """Questions with 2 or 3 frames, two per video."""
    rng = np.random.default_rng(7)
    made = []
    for name in names:
        for i in range(8):
            frames = rng.uniform(0, 0.1, (layers, 2 + i % 2))
            others = rng.uniform(0, 0.1, (len(PARTS), layers)).tolist()
            shares = {**dict(zip(PARTS, others, strict=True)), "video": frames.sum(1).tolist()}
            made.append(
                AttentionRecord(
                    f"q{i}", f"v{i // 2}", "t", name, "paper", "last", 1,
                    frames=tuple(range(frames.shape[1])), weights=tuple(frames.tolist()),
                    by_frame=tuple(map(tuple, frames.tolist())), shares=shares,
                )
            )  # fmt: skip
    failed = AttentionRecord("x", "v", "t", names[0], "paper", "last", error="unreadable")
    return [*made, failed]


def test_attention_rows_are_means_over_questions_by_part_and_frame():
    records = maps()
    rows = attention_rows(attention_panels(records))
    for name in ("full", "_$a_b$"):
        own = [r for r in records if r.intervention == name and r.error is None]
        expected = {part: [r.shares[part] for r in own] for part in PARTS}
        for frame in range(3):
            having = [np.array(r.by_frame) for r in own if len(r.by_frame[0]) > frame]
            expected[f"frame {frame}"] = [shares[:, frame] for shares in having]
        found = [row for row in rows if row["intervention"] == name]
        assert list(dict.fromkeys(row["key"] for row in found)) == list(expected)
        for key, values in expected.items():
            of_key = [row for row in found if row["key"] == key]
            assert [row["layer"] for row in of_key] == list(range(1, LAYERS + 1))
            assert [row["mean"] for row in of_key] == pytest.approx(np.mean(values, axis=0))
            assert {row["n"] for row in of_key} == {len(values)}
            assert {row["query"] for row in of_key} == {"last"}
            assert all(row["low"] < row["mean"] < row["high"] for row in of_key)


def test_attention_intervals_are_by_video():
    records = [record for record in maps(("full",)) if record.error is None]
    (panel,) = attention_panels(records)
    values = np.array([record.shares["video"] for record in records])
    curve = mean_curve(values, [record.video_id for record in records])
    assert panel.curves["video"] == curve and curve.n_videos == 4
    low, high = slow_interval(values[:, 0], [r.video_id for r in records], [1] * len(records))
    assert (curve.low[0], curve.high[0]) == pytest.approx((low, high), abs=0.1 * (high - low))


def test_attention_is_drawn_by_part_above_and_by_frame_below():
    found = attention_panels(maps(), ["_$a_b$"])
    figure = attention_curves(found, "$title$")
    upper, lower = figure.axes[:2], figure.axes[2:4]
    assert [panel.get_title() for panel in upper] == ["_$a_b$", "full"]
    for one, above, below in zip(found, upper, lower, strict=True):
        drawn = [line.get_ydata() for line in above.lines]
        assert drawn == [pytest.approx(100 * np.array(one.curves[part].mean)) for part in PARTS]
        drawn = [line.get_ydata() for line in below.lines]
        frames = [one.curves[f"frame {frame}"] for frame in range(3)]
        assert drawn == [pytest.approx(100 * np.array(curve.mean)) for curve in frames]
    assert upper[0].get_ylim() == upper[1].get_ylim() and lower[0].get_ylim() == lower[1].get_ylim()
    assert upper[0].get_ylim() != lower[0].get_ylim(), "frames have a scale of their own"
    assert "last positions" in upper[0].get_ylabel()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(PARTS)


def test_attention_that_cannot_be_averaged_is_refused():
    with pytest.raises(MapflowError, match="no question has attention maps"):
        attention_panels(maps()[-1:])
    with pytest.raises(MapflowError, match="records of 2 and 5 layers"):
        attention_panels([*maps(("full",)), *maps(("full",), layers=2)])
    other = [replace(record, rows="question") for record in maps()]
    with pytest.raises(MapflowError, match="positions last and question"):
        attention_panels([*maps(), *other])
    early = attention_panels([*maps(("full",)), *maps(("early-exit@2",), layers=2)])
    assert [len(one.curves["video"].mean) for one in early] == [LAYERS, 2]
    assert attention_curves(early).axes


def test_the_command_knows_what_a_folder_holds(tmp_path, capsys):
    for norm in (True, False):
        RunFolder(tmp_path / f"trace{norm}", {}, {}, TraceRecord).append(traces(norm))
    about = {"interventions": {"_$a_b$": "x", "full": "full"}}
    RunFolder(tmp_path / "lens", {}, about, LensRecord).append(readings())
    assert main(["figure", str(tmp_path / "traceTrue"), str(tmp_path / "traceFalse")]) == 0
    with (tmp_path / "traceTrue" / "answers.csv").open() as file:
        assert {row["final_norm"] for row in csv.DictReader(file)} == {"True", "False"}
    lists = tmp_path / "lists.yaml"
    lists.write_text("side: [left]\n")
    out = tmp_path / "o.svg"
    assert main(["figure", str(tmp_path / "lens"), "--words", str(lists), "-o", str(out)]) == 0
    with out.with_suffix(".csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["intervention"] for row in rows] == ["_$a_b$"] * LAYERS + ["full"] * LAYERS
    assert {row["words"] for row in rows} == {"side"}
    RunFolder(tmp_path / "attention", {}, about, AttentionRecord).append(maps())
    assert main(["figure", str(tmp_path / "attention"), "-o", str(out)]) == 0
    with out.with_suffix(".csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(dict.fromkeys(row["intervention"] for row in rows)) == ["_$a_b$", "full"]

    capsys.readouterr()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / Record.FILE).write_text("")
    (tmp_path / "empty").mkdir()
    for words, said in (
        (["run"], "is a run"),
        (["empty"], "holds no sweep.jsonl, trace.jsonl, lens.jsonl"),
        (["traceTrue", "lens"], "draw them one by one"),
        (["traceTrue", "traceTrue"], "traced twice"),
        (["traceTrue", "--words", str(lists)], "--words is for a lens"),
    ):
        arguments = [
            word if "/" in word or word[0] == "-" else str(tmp_path / word) for word in words
        ]
        assert main(["figure", *arguments]) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1

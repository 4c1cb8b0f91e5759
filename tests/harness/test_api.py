"""The Python surface: everything here uses `import mapflow` and its public names only."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import mapflow

CLIPS = Path(__file__).parents[2] / "tasks" / "motion" / "data" / "video"
CLIP = str(CLIPS / "direction" / "direction_000.mp4")
DIRECTIONS = ["Up", "Down", "Left", "Right"]

SNIPPET = """
import mapflow

model = mapflow.load()
answer = model.ask({clip!r}, "Which direction does the red circle move?",
                   ["Up", "Down", "Left", "Right"], intervention="effective")
assert answer.prediction in ("Up", "Down", "Left", "Right")
assert abs(sum(answer.probabilities.values()) - 1) < 0.2
assert 0 < answer.edges_kept < answer.edges_total
assert answer.layout.n_frames == 8
weights = answer.attention(rows="question", layers=(6, 8), heads="mean")
assert weights.dims == ("layer", "key") and list(weights.layer.values) == [6, 7, 8]
questions = mapflow.load_questions("mapflow_motion_direction", limit=2)
result = mapflow.sweep(model, questions, routes=["video->last"], output_path="sweep")
figure = result.plot()
assert figure.axes
frame = mapflow.read_run("sweep").to_pandas()
assert set(frame.route) == {{"video->last"}} and len(frame) == 2
print(repr(model), repr(answer), sep="\\n")
"""


@pytest.fixture(scope="module")
def model() -> mapflow.Model:
    return mapflow.load()


@pytest.fixture(scope="module")
def questions() -> list[mapflow.Question]:
    return mapflow.load_questions("mapflow_motion_direction", limit=2)


def test_the_snippet_runs_in_a_fresh_process(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SNIPPET.format(clip=CLIP)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "<Model pathways: mapflow_llava, 12 layers" in done.stdout
    assert "<Answer " in done.stdout and "under effective" in done.stdout


def test_importing_mapflow_imports_nothing_heavy():
    heavy = ("torch", "transformers", "lmms_eval", "numpy", "pandas")
    script = f"import sys, mapflow; print([n for n in {heavy!r} if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_every_public_name_exists_and_is_documented():
    for name in mapflow.__all__:
        value = getattr(mapflow, name)
        assert name == "__version__" or value.__doc__, name
    assert set(mapflow.__all__) <= set(dir(mapflow))
    with pytest.raises(AttributeError, match="'mapflow' has no attribute 'swep'"):
        mapflow.swep  # noqa: B018


def test_the_version_is_the_distributions():
    from importlib.metadata import version

    assert mapflow.__version__ == version("mapflow")


def test_an_answer_equals_the_record_of_a_run(model, questions):
    """The same question through `ask` and through the benchmark's own path."""
    asked = questions[0]
    through_benchmark = model.ask(asked, intervention="effective")
    by_hand = model.ask(
        asked.clip.path,
        asked.stem,
        asked.options,
        intervention="effective",
        correct=asked.target,
    )
    assert by_hand.probabilities == through_benchmark.probabilities
    assert by_hand.correct == through_benchmark.correct
    assert by_hand.edges_kept == through_benchmark.edges_kept


def test_an_unknown_right_option_leaves_correctness_open(model):
    answer = model.ask(CLIP, "Which direction does it move?", DIRECTIONS)
    assert answer.correct is None
    assert answer.edges_kept == answer.edges_total


def test_attention_weights_have_named_axes_and_sum_to_one(model):
    answer = model.ask(CLIP, "Which direction does it move?", DIRECTIONS, correct="Up")
    mean = answer.attention(rows="last")
    every = answer.attention(rows="last", heads="all")
    assert every.dims == ("layer", "head", "key")
    np.testing.assert_allclose(every.mean("head").values, mean.values, atol=1e-6)
    np.testing.assert_allclose(mean.sum("key").values, 1, atol=1e-5)
    assert set(mean.segment.values) >= {"frame[0]", "stem", "last"}


def test_a_cut_route_has_no_attention(model):
    answer = model.ask(
        CLIP, "Which direction does it move?", DIRECTIONS, intervention="video->last@2-4"
    )
    weights = answer.attention(rows="last")
    video = [name.startswith("frame") for name in weights.segment.values]
    by_layer = weights[:, video].sum("key")
    assert (by_layer.sel(layer=[2, 3, 4]).values == 0).all()
    assert (by_layer.sel(layer=[1, 5]).values > 0).all()


@pytest.mark.parametrize(
    ("analysis", "options"),
    [("sweep", {"routes": "video->last"}), ("trace", {}), ("lens", {"k": 2}), ("attention", {})],
)
def test_every_analysis_returns_records_a_table_and_a_figure(model, questions, analysis, options):
    result = getattr(mapflow, analysis)(model, questions, **options)
    assert isinstance(result, mapflow.AnalysisResult)
    assert len(result.records) == len(questions) == len(result.to_pandas())
    assert result.plot().axes
    assert result.table in repr(result)
    assert result._repr_html_().startswith("<img")


def test_several_benchmarks_have_a_figure_each_and_no_common_ranges(model, questions, tmp_path):
    """One curve and one set of ranges were made of both."""
    other = [replace(one, question_id=f"other/{one.question_id}") for one in questions[:1]]
    result = mapflow.trace(model, [*questions, *other])
    assert list(result.summaries) == ["motion", "other"]
    assert result._repr_html_().count("<img") == 2
    for wrong in (result.plot, lambda: result.summary, lambda: result.plot(benchmark="none")):
        with pytest.raises(mapflow.MapflowError, match="choose one of motion, other"):
            wrong()
    drawn = result.plot(benchmark="other").axes[0].lines[0].get_ydata()
    alone = mapflow.trace(model, other).plot().axes[0].lines[0].get_ydata()
    np.testing.assert_allclose(drawn, alone, atol=1e-5)
    with pytest.raises(mapflow.MapflowError, match="not on motion and other together"):
        mapflow.discover(model, [*questions, *other], tmp_path / "found")
    assert not (tmp_path / "found").exists()


def test_records_of_a_folder_are_a_data_frame(model, questions, tmp_path):
    result = mapflow.trace(model, questions, ["full", "effective"], output_path=tmp_path / "trace")
    read = mapflow.read_run(tmp_path / "trace")
    assert [vars(one) for one in read.records] == [vars(one) for one in result.records]
    assert set(read.to_pandas().intervention) == {"full", "effective"}
    assert read.manifest["identity"]["model"] == "mapflow_llava"
    assert "<table" in read._repr_html_()
    again = mapflow.trace(model, questions[:1], "effective", output_path=tmp_path / "trace")
    assert [one.key for one in again.records] == [(questions[0].question_id, "effective")]


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        ({"options": ["left"]}, "2 to 26 options, not 1"),
        ({"clip": "absent.mp4"}, "clip 'absent.mp4' does not exist"),
        ({"intervention": "video->lst"}, "unknown segment 'lst'.*did you mean 'last'"),
        ({"intervention": "efective"}, "did you mean 'effective'"),
        ({"intervention": "video->question@6-20"}, r"layer 20 is outside 1\.\.12"),
        ({"intervention": "true_option->last"}, "pass correct="),
        ({"correct": "Sideways"}, "'Sideways' is not among the options"),
        ({"correct": 7}, "correct=7 is outside 0 to 3"),
        ({"wording": "nobench"}, "'nobench' is not a benchmark"),
        ({"question": " "}, "a question needs some text"),
    ],
)
def test_mistakes_are_one_line_with_value_and_remedy(model, ask, message):
    words = {"clip": CLIP, "question": "Which way?", "options": DIRECTIONS, **ask}
    with pytest.raises(mapflow.MapflowError, match=message) as error:
        model.ask(words.pop("clip"), words.pop("question"), words.pop("options"), **words)
    assert "\n" not in str(error.value)


def test_mistakes_of_analyses_and_runs(model, questions, tmp_path):
    with pytest.raises(mapflow.MapflowError, match="unknown segment"):
        mapflow.sweep(model, questions, routes=["video->nowhere"])
    with pytest.raises(mapflow.MapflowError, match="window=0 must be at least 1"):
        mapflow.sweep(model, questions, window=0)
    with pytest.raises(mapflow.MapflowError, match="no questions"):
        mapflow.trace(model, [])
    with pytest.raises(mapflow.MapflowError, match="holds no records"):
        mapflow.read_run(tmp_path)
    with pytest.raises(mapflow.MapflowError, match="name at least one run"):
        mapflow.compare()
    with pytest.raises(mapflow.MapflowError, match="margin=0 must lie between"):
        mapflow.compare(tmp_path, margin=0)
    with pytest.raises(mapflow.MapflowError, match="unknown task"):
        mapflow.load_questions("mapflow_motoin")
    with pytest.raises(mapflow.MapflowError):
        mapflow.load(tmp_path / "absent")


def test_a_comparison_is_a_data_frame_with_sentences(tmp_path):
    subprocess.run(
        [
            *(sys.executable, "-m", "mapflow.harness.evaluation.lmms_eval", "--limit", "6"),
            *("--model", "mapflow_llava", "--tasks", "mapflow_motion_direction"),
            *("--intervention", "full,effective", "--output_path", str(tmp_path / "run")),
        ],
        capture_output=True,
        timeout=600,
        check=True,
    )
    comparison = mapflow.compare(tmp_path / "run")
    assert len(comparison.table) == 1
    assert comparison.sentences and "effective" in repr(comparison)
    assert "<table" in comparison._repr_html_()
    assert set(mapflow.read_run(tmp_path / "run").to_pandas().intervention) == {"full", "effective"}

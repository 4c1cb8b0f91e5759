"""`mapflow report` on run folders: its diagrams, its frames, and its notes about missing files."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mapflow.harness.cli.main import main
from mapflow.harness.reporting.policies import depth, policy_diagrams
from mapflow.harness.reporting.viewer import (
    FRAME_HEIGHT,
    frames_of,
    known_questions,
    viewer_data,
)
from mapflow.model_adapters.interventions import parse_intervention, reachable
from mapflow.model_adapters.interventions.language.layout import example_layout
from mapflow.model_adapters.video.reader import read_frames
from mapflow.results.contract.question import Clip
from mapflow.results.records.sweep import SweepRecord
from mapflow.results.runs.folder import RunFolder
from mapflow.results.runs.run import read_runs
from mapflow.tasks.registry import BENCHMARKS, load_questions
from tests.results.records import a_record
from tests.results.run_folders import answers, write_run
from tests.results.test_report_sweeps import CHANGE, a_sweep_record

LAYERS = 12
EFFECTIVE = "effective:cross_frame=2-6,video_to_question=2-8,question_to_last=9-12"
EXAMPLE = a_record(n_tokens=206, edges_total=LAYERS * 206 * 207 // 2, frame_indices=tuple(range(8)))


def test_depth_follows_from_edges_and_tokens():
    assert depth(EXAMPLE) == LAYERS
    for changes in ({"edges_total": None}, {"n_tokens": None}, {"edges_total": 100}):
        assert depth(a_record(**{"n_tokens": 206, "edges_total": 21321, **changes})) is None


@pytest.mark.parametrize(
    "expression",
    [
        "full",
        EFFECTIVE,
        "knockout:video->question@center=6,window=5",
        "question->last@3-4+video->last",
        "frame[2]->question@3",
    ],
)
def test_a_diagram_agrees_with_the_token_masks(expression):
    intervention = parse_intervention(expression)
    (diagram,) = policy_diagrams({"interventions": {"it": expression}}, EXAMPLE)
    layout = example_layout(8, 3)
    compiled = intervention.compile(layout, LAYERS, key="example")
    flows = {(target, source): shares for target, source, shares in diagram.flows}
    frame_of = np.array([s.index if s.kind == "frame" else -1 for s in layout.segments])[
        layout.segment_of
    ]
    for (target, source), shares in flows.items():
        rows = layout.positions("video" if target == "frame" else target)
        columns = layout.positions("video" if "frame" in source else source)
        pairs = (columns[None] <= rows[:, None]).numpy()
        if target == "frame":
            same = frame_of[rows.numpy()][:, None] == frame_of[columns.numpy()][None]
            pairs &= same if source == "same frame" else ~same
        for layer, share in enumerate(shares):
            open_ = compiled.token_mask(layer)[rows][:, columns].numpy()[pairs]
            assert (share > 0) == open_.any() and (share == 1) == open_.all(), (
                target,
                source,
                layer,
            )
    assert bool(diagram.paths) == reachable(compiled, "video", "last")


def test_effective_is_drawn_as_the_paper_describes_it():
    (diagram,) = policy_diagrams({"interventions": {"effective": EFFECTIVE}}, EXAMPLE)
    flows = {
        (t, s): [layer for layer, share in enumerate(shares, 1) if share]
        for t, s, shares in diagram.flows
    }
    assert flows["question", "video"] == list(range(2, 9))
    assert flows["frame", "earlier frames"] == list(range(2, 7))
    assert flows["last", "question"] == list(range(9, 13)) and flows["last", "video"] == []


def test_notes_explain_what_is_not_drawn():
    manifest = {
        "interventions": {
            "random": "random:seed=0",
            "odd": "no such thing",
            "deep": "video->last@40",
        }
    }
    random, odd, deep = policy_diagrams(manifest, EXAMPLE)
    assert not random.flows and "single edges" in random.note
    assert not odd.flows and "Not drawn" in odd.note
    assert not deep.flows and "Not drawn" in deep.note
    (unknown,) = policy_diagrams({"interventions": {"full": "full"}}, None)
    assert "how many layers" in unknown.note


@pytest.fixture(scope="module")
def motion():
    """The bundled benchmark's first questions of one subtask."""
    return load_questions("mapflow_motion")[:6]


def records_of(motion, intervention, correct):
    found = answers(intervention, correct)
    return [
        type(record)(
            **{
                **vars(record),
                "question_id": question.question_id,
                "video_id": question.video_id,
                "task": question.task,
                "n_options": len(question.options),
                "n_tokens": 206,
                "edges_total": EXAMPLE.edges_total,
                "frame_indices": (0, 3, 5),
            }
        )
        for record, question in zip(found, motion, strict=True)
    ]


@pytest.fixture
def folder(tmp_path, motion):
    records = records_of(motion, "full", [1, 1, 1, 1, 0, 0]) + records_of(
        motion, "effective", [1, 1, 1, 1, 1, 0]
    )
    return write_run(
        tmp_path / "run", records, interventions={"full": "full", "effective": EFFECTIVE}
    )


def test_frames_are_the_recorded_ones(motion):
    uris = frames_of(motion[0], (5, 0))
    kind, _, data = uris[0].partition(",")
    assert kind == "data:image/jpeg;base64" and len(uris) == 2
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"), dtype=float)
    pixels = read_frames(Clip(motion[0].clip.path), lambda *_: (5,), 1).pixels[0]
    expected = Image.fromarray(pixels)
    expected.thumbnail((4 * FRAME_HEIGHT, FRAME_HEIGHT))
    assert shown.shape[0] <= FRAME_HEIGHT
    assert np.abs(shown - np.asarray(expected, dtype=float)).mean() < 6


@pytest.mark.parametrize("benchmark", ["tvbench", "tomato", "tvbench_open"])
def test_real_benchmarks_give_texts_and_the_frames_that_are_there(real_data, benchmark):
    ids = [f"{benchmark}/{subtask}/0000" for subtask in BENCHMARKS[benchmark].counts]
    found, _ = known_questions(ids, real_data)
    assert found and all(question.partition("/")[0] == benchmark for question in found)
    assert all(question.stem for question in found.values())
    shown = [q for q in found.values() if Path(q.clip.path).is_file() and q.clip.archive is None]
    for question in shown[:1]:  # question files may be there without their videos
        assert all(uri.startswith("data:image/jpeg;base64,") for uri in frames_of(question, (0, 1)))


def test_flipped_questions_get_frames_first(folder, motion):
    viewer = viewer_data(read_runs(folder), None, 1)
    assert list(viewer.runs) == ["full", "effective"]
    assert [q.question_id for q in viewer.questions if q.frames] == [motion[4].question_id]
    by_id = {question.question_id: question for question in viewer.questions}
    for question in motion:
        shown = by_id[question.question_id]
        assert (shown.stem, shown.options) == (question.stem, question.options)
    flipped_later = records_of(motion, "random:seed=0", [0, 1, 1, 1, 0, 0])
    write_run(
        folder,
        flipped_later,
        interventions={"full": "full", "effective": EFFECTIVE, "random:seed=0": "x"},
    )
    shown = [q.question_id for q in viewer_data(read_runs(folder), None, 2).questions if q.frames]
    assert shown == [motion[0].question_id, motion[4].question_id]
    shown = [q.question_id for q in viewer_data(read_runs(folder), None, 1).questions if q.frames]
    assert shown == [motion[4].question_id], (
        "flips of the second run come before those of the third"
    )
    assert "Frames of 1 of 6 questions" in viewer.notes[-1]
    assert not any(q.frames for q in viewer_data(read_runs(folder), None, 0).questions)


def test_missing_benchmarks_leave_ids_and_a_note(tmp_path, monkeypatch):
    monkeypatch.delenv("MAPFLOW_DATA", raising=False)
    runs = read_runs(write_run(tmp_path / "run", answers("full", [1, 0])))
    viewer = viewer_data(runs, None, 5)
    assert [question.question_id for question in viewer.questions] == [
        "tvbench/one/0000",
        "tvbench/one/0001",
    ]
    assert "Only question ids are shown for tvbench: " in viewer.notes[0]
    foreign = read_runs(
        write_run(tmp_path / "b", answers("full", [1], question_id="other_task/{:06d}"))
    )
    assert "'other_task' is not a benchmark of mapflow" in viewer_data(foreign, None, 5).notes[0]


def test_a_missing_subtask_leaves_the_others_their_texts():
    found, notes = known_questions(["motion/antonym/0000", "motion/absent/0000"], None)
    assert "motion/antonym/0000" in found
    (note,) = notes
    assert note.startswith("Only question ids are shown for motion/absent: unknown task")


def write_sweep(folder: Path) -> Path:
    identity = {"checkpoint": "swept", "style": "center", "window": 3}
    run = RunFolder(folder, identity, {"device": "cpu"}, SweepRecord)
    run.append(a_sweep_record(i, change=CHANGE[i]) for i in range(40))
    return folder


def test_a_sweep_alone_is_a_report_too(tmp_path):
    path = tmp_path / "report.html"
    assert main(["report", str(write_sweep(tmp_path / "sweep")), "-o", str(path)]) == 0
    text = path.read_text()
    assert 'id="sweep"' in text and 'id="leaderboard"' not in text
    assert "swept: style center, window 3" in text and text.count("<circle") == 3


def page_data(path: Path):
    found = re.search(
        r'<script type="application/json" id="data">(.*?)</script>', path.read_text(), re.S
    )
    assert found
    return json.loads(found[1])


def test_the_command_writes_one_page_with_every_section(folder, tmp_path, capsys):
    path = tmp_path / "report.html"
    sweep = write_sweep(tmp_path / "sweep")
    assert main(["report", str(folder), str(sweep), "-o", str(path), "--frames", "2"]) == 0
    assert capsys.readouterr().out == f"written: {path}\n"
    text = path.read_text()
    for section in ("in-short", "leaderboard", "comparisons", "sweep", "policies", "questions"):
        assert f'id="{section}"' in text
    data = page_data(path)
    assert data["runs"] == ["full", "effective"] and len(data["questions"]) == 6
    assert sum("f" in question for question in data["questions"]) == 2
    assert "whether effective is inferior to full on Motion" in text or "non-inferior" in text


def test_runs_that_do_not_match_become_a_warning(folder, tmp_path, motion):
    other = write_run(tmp_path / "other", records_of(motion, "full", [1] * 6)[:4])
    path = tmp_path / "report.html"
    assert main(["report", str(folder), str(other), "-o", str(path), "--frames", "0"]) == 0
    assert "Motion is not compared: the runs answer different questions" in path.read_text()
    assert main(["report", str(folder), "-o", str(path), "--baseline", "nothing"]) == 2

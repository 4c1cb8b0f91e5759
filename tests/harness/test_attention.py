"""`mapflow attention` and `mapflow lens --overlay` as a user runs them: numbers, pictures,
resumption, mistakes.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mapflow.harness.analyses import overlays
from mapflow.harness.analyses.attention import AttentionMaps
from mapflow.harness.analyses.overlays import question_canvas
from mapflow.harness.cli.main import main
from mapflow.model_adapters.families.hf.model import HfVideo
from mapflow.model_adapters.families.llava.model import LlavaVideo
from mapflow.model_adapters.families.registry import BUNDLED
from mapflow.model_adapters.video.reader import VideoError
from mapflow.model_adapters.video_llm import Prepared, VideoLLM
from mapflow.results.contract.question import Clip, Question
from mapflow.results.records.attention import AttentionRecord
from mapflow.results.records.lens import LensRecord
from mapflow.results.runs.folder import read_records
from mapflow.tasks.registry import load_questions

sys.path.append(str(Path(__file__).parents[1] / "model_adapters"))
from synthetic_videos import number_in, write_video
from test_incremental_adapters import CHAT
from tiny_hf import write_tiny_hf
from tiny_llava import tiny_config, tiny_question, write_tiny_llava

TASK = "mapflow_motion_direction"
CUT = "video->question@2-4"
ASKED = ("--task", TASK, "--limit", "1")
COMMAND = (*ASKED, "--intervention", f"full,{CUT}", "--rows", "question")
LAYERS = (2, 3)
"""1-based, of the overlays."""


def mapflow(command: str, folder: Path, *words: str) -> int:
    return main([command, "--output_path", str(folder), *words])


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A finished run of the installed command, with overlays."""
    folder = tmp_path_factory.mktemp("runs") / "attention"
    command = ["attention", "--output_path", str(folder), *COMMAND, "--overlay", "2-3"]
    done = subprocess.run(
        [sys.executable, "-m", "mapflow.harness.cli.main", *command],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "mean share of question's attention that goes to video" in done.stdout
    return folder


@pytest.fixture(scope="module")
def records(folder) -> dict[str, AttentionRecord]:
    return {record.intervention: record for record in read_records(folder, AttentionRecord)}


@pytest.fixture(scope="module")
def model() -> LlavaVideo:
    return LlavaVideo.load(BUNDLED, dtype=torch.float32)


@pytest.fixture(scope="module")
def prepared(model) -> Prepared:
    return model.prepare(load_questions(TASK, limit=1)[0])


def test_a_knockout_leaves_nothing_in_its_layers(folder, records, prepared):
    full, cut = records["full"], records[CUT]
    assert full.shares is not None and cut.shares is not None
    assert full.n_rows == cut.n_rows == len(prepared.layout.positions("question"))
    for layer, (ours, theirs) in enumerate(
        zip(full.shares["video"], cut.shares["video"], strict=True), 1
    ):
        assert ours > 0
        assert (theirs == 0) == (2 <= layer <= 4)
        assert ours == pytest.approx(sum(full.weights[layer - 1]), rel=1e-4)
    summary = json.loads((folder / "summary.json").read_text())
    assert list(summary) == ["full", CUT]
    for name, record in records.items():
        assert summary[name]["n"] == 1 and summary[name]["errors"] == 0
        assert summary[name]["shares"]["video"] == pytest.approx(record.shares["video"])  # pyright: ignore[reportOptionalSubscript]


def test_the_pictures_data_are_the_records_means_patch_by_patch(folder, records, prepared):
    (path,) = (folder / "overlays").glob("*_attention.csv")
    rows = rows_of(path)
    places = prepared.layout.positions("video").tolist()
    for suffix in (".png", ".svg"):
        assert path.with_suffix(suffix).stat().st_size > 10_000
    assert {row["intervention"] for row in rows} == {"full", CUT}
    assert len(rows) == 2 * len(places)
    # the bundled model's tokens are squares, frame by frame and row by row
    side = round((len(places) / prepared.layout.n_frames) ** 0.5)
    for row in rows:
        frame = prepared.frame_indices.index(int(row["frame"]))
        place = (frame * side + int(row["row"])) * side + int(row["column"])
        assert records["full"].frames[place] == frame
        full, own = (
            sum(records[name].weights[layer - 1][place] for layer in LAYERS) / len(LAYERS)
            for name in ("full", row["intervention"])
        )
        assert float(row["weight"]) == pytest.approx(own, rel=1e-4, abs=1e-9)
        assert float(row["lost"]) == pytest.approx(full - own, rel=1e-3, abs=1e-7)
    assert (
        folder / "overlays" / path.name.replace("_attention", "_difference")
    ).read_text() == path.read_text()


def test_a_finished_run_is_drawn_without_being_asked_again(folder, monkeypatch, capsys):
    before = (folder / AttentionRecord.FILE).read_bytes()
    (path,) = (folder / "overlays").glob("*_attention.csv")
    drawn = path.read_text()
    monkeypatch.setattr(AttentionMaps, "measure", None)
    monkeypatch.setattr(
        overlays, "save_figure", lambda figure, path, rows: saved.append((path.name, rows))
    )
    saved: list = []
    assert mapflow("attention", folder, *COMMAND, "--overlay", "1") == 0
    assert (folder / AttentionRecord.FILE).read_bytes() == before
    assert [name.rpartition("_")[2] for name, _ in saved] == ["attention", "difference"]
    first = [row["weight"] for row in saved[0][1]]
    assert first != [float(row["weight"]) for row in csv.DictReader(drawn.splitlines())]
    assert (
        mapflow("attention", folder, *ASKED, "--intervention", f"full,{CUT}", "--rows", "last") == 2
    )
    assert "holds another run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "words", "said"),
    [
        ("attention", ("--rows", "quesion"), "--rows 'quesion' names no segment; known: all,"),
        ("attention", ("--rows", "frame[99]"), "cannot be mapped: this prompt has no 'frame[99]'"),
        ("attention", ("--intervention", "nothing-such"), "nothing-such"),
        ("attention", ("--intervention", "video->last@99"), "99"),
        ("attention", ("--overlay", "99"), "--overlay 99: layer 99 is outside 1..12"),
        ("attention", ("--overlay", "x"), "--overlay x: layers 'x' are not of the form 6-15 or 7"),
        ("attention", ("--limit", "0"), "must be a whole number of at least 1"),
        ("lens", ("--overlay", "0"), "--overlay 0: layers 0-0 must count up from 1"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(command, words, said, tmp_path, capsys):
    assert mapflow(command, tmp_path / "x", *ASKED, *words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert not (tmp_path / "x" / "overlays").exists()


def test_the_lens_writes_its_first_words_where_their_tokens_lie(tmp_path, model, prepared):
    assert (
        mapflow(
            "lens", tmp_path, *ASKED, "--intervention", "full", "--topk", "1", "--overlay", "9-10"
        )
        == 0
    )
    (record,) = read_records(tmp_path, LensRecord)
    grid = model.token_grid(prepared)
    places = prepared.layout.positions("video").tolist()
    for layer in (9, 10):
        (path,) = (tmp_path / "overlays").glob(f"*_full_layer{layer}.csv")
        rows = rows_of(path)
        assert len(rows) == len(places)
        for row in rows:
            frame = prepared.frame_indices.index(int(row["frame"]))
            place = places.index(int(grid[frame, int(row["row"]), int(row["column"])]))
            word = (record.words or {})[str(record.ids[layer - 1][place][0])]
            assert row["word"].lstrip("'") == word.lstrip("'")
            assert float(row["probability"]) == pytest.approx(
                record.probabilities[layer - 1][place][0], 1e-4
            )
    assert len(list((tmp_path / "overlays").glob("*.png"))) == 2


def test_layers_that_an_early_exit_leaves_out_are_said(tmp_path, monkeypatch, capsys):
    drawn: list = []
    monkeypatch.setattr(overlays, "save_figure", lambda figure, path, rows: drawn.append(rows))
    names = "full,early-exit@2"
    assert mapflow("attention", tmp_path, *ASKED, "--intervention", names, "--overlay", "3-4") == 0
    assert "early-exit@2 ran 2 layers, so no later one is drawn" in capsys.readouterr().err
    assert [{row["intervention"] for row in rows} for rows in drawn] == [{"full"}]


def test_what_cannot_be_drawn_is_said_and_nothing_is_drawn(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(LlavaVideo, "token_grid", VideoLLM.token_grid)
    assert mapflow("attention", tmp_path, *ASKED, "--overlay") == 0
    error = capsys.readouterr().err
    assert error.count("no overlay of question") == 1
    assert "lie on a frame is not known" in error and "Traceback" not in error
    assert not (tmp_path / "overlays").exists()


@pytest.fixture(scope="module")
def numbered(tmp_path_factory) -> Clip:
    """A video wider than high whose frames carry their number."""
    path = tmp_path_factory.mktemp("videos") / "numbered.mp4"
    write_video(path, "libx264", size=(64, 48), options={"g": "12"})
    return Clip(str(path))


def canvas_of(model: VideoLLM, question: Question) -> tuple[Prepared, overlays.OverlayCanvas]:
    prepared = model.prepare(question)
    return prepared, question_canvas(model, prepared)


def test_pictures_are_the_frames_that_were_shown_cropped_as_the_model_sees_them(tmp_path, numbered):
    model = LlavaVideo.load(write_tiny_llava(tmp_path, tiny_config(tokens=(2, 4))))
    prepared, canvas = canvas_of(model, tiny_question(clip=numbered))
    assert canvas.numbers == prepared.frame_indices
    assert canvas.pictures.shape[1:] == (48, 48, 3), "the square in the middle"
    assert canvas.tokens.shape == (prepared.layout.n_frames, 2, 4)
    assert sorted(canvas.tokens.flatten()) == list(range(len(prepared.layout.positions("video"))))
    view = model.view(48, 64)
    assert (view.left, view.right) == (8, 56)


@pytest.mark.parametrize("shown", [4, 8, 16])
def test_frames_pooled_over_time_show_the_first_of_each_segment(shown, tmp_path, numbered):
    """The smallest number in each window of torch's own pooling."""
    model = LlavaVideo.load(write_tiny_llava(tmp_path, tiny_config(tokens=(2, 4))))
    prepared, canvas = canvas_of(model, replace(tiny_question(clip=numbered), n_frames=shown))
    n_segments = prepared.layout.n_frames
    assert len(prepared.frame_indices) == shown
    assert len(canvas.pictures) == len(canvas.tokens) == n_segments
    number = torch.tensor([prepared.frame_indices], dtype=torch.float)
    first = -torch.nn.functional.adaptive_max_pool1d(-number, n_segments)[0]
    assert canvas.numbers == tuple(first.long().tolist())


@pytest.mark.parametrize("shown", [7, 8])
def test_a_clip_that_is_filled_up_shows_its_last_frame_too(shown, tmp_path, numbered):
    model = HfVideo.load(write_tiny_hf(tmp_path, "qwen2_5_vl"), dtype=torch.float32)
    prepared, canvas = canvas_of(model, replace(CHAT, clip=numbered, n_frames=shown))
    assert prepared.layout.n_frames == len(canvas.pictures) == 4
    assert canvas.numbers == tuple(prepared.frame_indices[k] for k in (0, 2, 4, 6))


@pytest.mark.parametrize("family", ["qwen2_5_vl", "llava_onevision"])
def test_a_segment_of_several_frames_shows_its_first(family, tmp_path, numbered):
    model = HfVideo.load(write_tiny_hf(tmp_path, family), dtype=torch.float32)
    prepared, canvas = canvas_of(model, replace(CHAT, clip=numbered))
    n_frames = prepared.layout.n_frames
    assert len(canvas.pictures) == len(canvas.numbers) == len(canvas.tokens) == n_frames
    step = {"qwen2_5_vl": 2, "llava_onevision": 1}[family]
    assert canvas.numbers == tuple(
        prepared.frame_indices[step * frame] for frame in range(n_frames)
    )
    if model.view(48, 64) == (0, 0, 48, 64):
        assert [number_in(picture) for picture in canvas.pictures] == list(canvas.numbers)
    video = prepared.layout.positions("video")
    for frame in range(n_frames):
        own = set(prepared.layout.positions(f"frame[{frame}]").tolist())
        assert set(video[canvas.tokens[frame].flatten()].tolist()) <= own


def test_large_frames_are_made_small(tmp_path, numbered, monkeypatch):
    model = LlavaVideo.load(write_tiny_llava(tmp_path, tiny_config(tokens=(2, 4))))
    prepared, whole = canvas_of(model, tiny_question(clip=numbered))
    monkeypatch.setattr(overlays, "LONGEST_SIDE", 20)
    small = question_canvas(model, prepared)
    np.testing.assert_array_equal(small.pictures, whole.pictures[:, ::3, ::3])


def test_a_video_that_is_gone_is_an_error_of_its_own(tmp_path, numbered):
    model = LlavaVideo.load(write_tiny_llava(tmp_path, tiny_config(tokens=(2, 4))))
    prepared = model.prepare(tiny_question(clip=numbered))
    gone = replace(
        prepared, question=replace(prepared.question, clip=Clip(str(tmp_path / "gone.mp4")))
    )
    with pytest.raises(VideoError, match="no such file"):
        question_canvas(model, gone)

"""`data check` counts what is there; `data prepare` unpacks it; neither fetches unasked."""

import hashlib
import json
from pathlib import Path

import pytest

from mapflow.results.contract.errors import MapflowError
from mapflow.tasks.data_check import check_data, render_check
from mapflow.tasks.data_folder import DataFolder, local_folder
from mapflow.tasks.data_prepare import fetch, folder_to_prepare, prepare_data, render_prepare
from mapflow.tasks.registry import (
    BENCHMARKS,
    benchmark_sizes,
    benchmark_with_files,
    load_questions,
    task_sizes,
)

from .folders import put, tomato_row, tvbench_row, write_tomato, write_tvbench, write_zip

TVBENCH, TOMATO = BENCHMARKS["tvbench"], BENCHMARKS["tomato"]


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("fetched without being asked")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)


def folder(root: Path, one=TVBENCH) -> DataFolder:
    return DataFolder(one.layout, root)


def by_name(check):
    return {subtask.subtask: subtask for subtask in check.subtasks}


def test_counts_questions_and_videos_once_each(tmp_path):
    rows = [
        tvbench_row(f"{name}.mp4") for name in ("found", "found", "packed", "missing", "broken")
    ]
    write_tvbench(tmp_path, {"action_count": rows})
    put(tmp_path / "video/action_count/found.mp4")
    put(tmp_path / "video/action_count/broken.mp4", b"")
    write_zip(tmp_path / "video/action_count.zip", {"packed.mp4": b"video"})
    check = check_data(
        TVBENCH, folder(tmp_path), lambda path: None if path.stat().st_size else "the file is empty"
    )
    one = by_name(check)["action_count"]
    assert (one.questions, one.found, one.packed, one.missing) == (
        5,
        2,
        1,
        ("action_count/missing.mp4",),
    )
    assert one.undecodable == {"action_count/broken.mp4": "the file is empty"}
    assert one.problem == "5 questions where 536 are published" and not one.complete
    text = render_check(check)
    assert "missing action_count/missing.mp4" in text and "broken.mp4: the file is empty" in text
    assert "object_count: no json/object_count.json" in text and text.endswith("not complete")


def test_without_a_decoder_nothing_is_called_broken(tmp_path):
    write_tvbench(tmp_path, {"action_count": [tvbench_row()]})
    put(tmp_path / "video/action_count/clip.mp4")
    check = check_data(TVBENCH, folder(tmp_path))
    assert by_name(check)["action_count"].undecodable is None and "broken" not in render_check(
        check
    )


def test_a_hostile_file_is_a_problem_not_the_end(tmp_path):
    write_tvbench(
        tmp_path, {"action_count": [tvbench_row("../x.mp4")], "object_count": [tvbench_row()]}
    )
    checks = by_name(check_data(TVBENCH, folder(tmp_path)))
    assert "field 'video'" in (checks["action_count"].problem or "")
    assert checks["object_count"].questions == 1


OPTIONS = {"action_antonym": 2, "action_sequence": 2, "object_shuffle": 3, "scene_transition": 2}
"""Of TVBench's subtasks; the others have four."""


PUBLISHED = {
    name: {subtask: n for subtask, n in BENCHMARKS[name].counts.items() if n is not None}
    for name in ("tvbench", "tomato")
}


def complete(root: Path, name: str) -> DataFolder:
    """A folder with the published numbers of questions and options, and every video."""
    one = BENCHMARKS[name]
    if name == "tvbench":
        for subtask, n in PUBLISHED[name].items():
            options = [str(number) for number in range(OPTIONS.get(subtask, 4))]
            row = tvbench_row(candidates=options, answer="1", start=0.0, end=1.0)
            write_tvbench(root, {subtask: [row] * n})
            put(root / "video" / subtask / "clip.mp4")
    else:
        for subtask, n in PUBLISHED[name].items():
            file = Path(one.layout.questions[subtask]).stem
            write_tomato(root, {file: [tomato_row(options=list("12345"))] * n})
        put(root / "videos/human/0001-00.mp4")
    return folder(root, one)


def test_a_complete_folder(tmp_path):
    check = check_data(TVBENCH, complete(tmp_path, "tvbench"), lambda _: None)
    assert check.questions == 2525
    assert (round(check.chance_macro or 0, 2), round(check.chance_micro or 0, 2)) == (33.33, 35.07)
    assert check.chance_as_published and check.complete
    assert render_check(check).endswith("\ncomplete")


def test_where_only_the_total_is_published_the_total_is_compared(tmp_path):
    """Numbers of questions by category are not published for Video-MME and LongVideoBench."""
    for name, total in (("videomme", 2700), ("longvideobench", 1337)):
        assert set(BENCHMARKS[name].counts.values()) == {None}
        assert benchmark_sizes()[name] == total
        assert not any(task.startswith(f"mapflow_{name}_") for task in task_sizes())
    one = BENCHMARKS["longvideobench"]
    put(tmp_path / "videos" / "clip.mp4")
    kinds = list(one.counts)
    for n in (len(kinds), 1337, 1338):
        rows = [
            {
                "question_category": kinds[i % len(kinds)].upper(),
                "candidates": ["one", "two"],
                "video_path": "clip.mp4",
                "question": "How many?",
                "correct_choice": 0,
                "duration": 4.0,
            }
            for i in range(n)
        ]
        (tmp_path / "lvb_val.json").write_text(json.dumps(rows), encoding="utf-8")
        check = check_data(one, folder(tmp_path, one), lambda _: None)
        assert check.complete == (n == 1337)
        text = render_check(check)
        assert f"questions: {n:,} of 1,337" in text
        row = next(line.split() for line in text.splitlines() if line.startswith("e2o "))
        assert row[1:3] == [str(check.subtasks[0].questions), "–"]


def test_chance_that_differs_is_said(tmp_path):
    check = check_data(TOMATO, complete(tmp_path, "tomato"), lambda _: None)
    assert check.questions == 1484 and check.chance_as_published is False and not check.complete
    assert "20.00 % (published 19.91 % DIFFERS)" in render_check(check)


def test_checksums(tmp_path):
    write_tvbench(tmp_path, {"action_count": [tvbench_row()]})
    good = put(tmp_path / "video/action_count/clip.mp4")
    put(tmp_path / "video/action_count/other.mp4", b"changed")
    digest = hashlib.sha256(good.read_bytes()).hexdigest()
    names = ("clip", "other", "absent")
    sums = tmp_path / "SHA256SUMS"
    sums.write_text("".join(f"{digest}  video/action_count/{name}.mp4\n" for name in names))
    check = check_data(TVBENCH, folder(tmp_path), checksums=sums)
    assert check.checksums == (
        "video/action_count/other.mp4: differs from its checksum",
        "video/action_count/absent.mp4: missing",
    )
    assert "1 of 3 files right" in render_check(check)
    sums.write_text(f"{digest}  ../../etc/passwd\n")
    with pytest.raises(MapflowError, match="line 1 names"):
        check_data(TVBENCH, folder(tmp_path), checksums=sums)
    sums.write_text("nonsense\n")
    with pytest.raises(MapflowError, match="line 1 is not"):
        check_data(TVBENCH, folder(tmp_path), checksums=sums)


def test_prepare_unpacks_once_and_says_what_to_fetch_by_hand(tmp_path):
    write_tvbench(tmp_path / "tvbench", {"action_count": [tvbench_row()]})
    write_zip(tmp_path / "tvbench/video/action_count.zip", {"action_count/clip.mp4": b"video"})
    where = folder_to_prepare(TVBENCH, tmp_path)
    (one,) = prepare_data(TVBENCH, where)
    assert (
        one.files == 1
        and (tmp_path / "tvbench/video/action_count/clip.mp4").read_bytes() == b"video"
    )
    text = render_prepare(TVBENCH, where, prepare_data(TVBENCH, where))
    assert "nothing new" in text and "NTU RGB+D" in text and str(where.root) in text
    assert "Google Drive" in render_prepare(TOMATO, folder_to_prepare(TOMATO, tmp_path), [])


def test_prepare_refuses_a_zip_that_reaches_outside(tmp_path):
    write_zip(tmp_path / "tvbench/video/action_count.zip", {"../../x.mp4": b"video"})
    with pytest.raises(MapflowError, match="refused"):
        prepare_data(TVBENCH, folder_to_prepare(TVBENCH, tmp_path))
    assert not list(tmp_path.rglob("x.mp4"))


def test_prepare_fetches_when_asked(tmp_path, monkeypatch):
    asked = []

    def download(repository, *, repo_type, local_dir, allow_patterns):
        asked.append((repository, repo_type, tuple(allow_patterns)))
        subtask = Path(allow_patterns[0]).stem
        write_tvbench(Path(local_dir), {subtask: [tvbench_row()]})
        write_zip(Path(local_dir) / "video" / f"{subtask}.zip", {"clip.mp4": b"video"})

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    unpacked = prepare_data(TVBENCH, folder_to_prepare(TVBENCH, tmp_path), fetch_missing=True)
    assert {(repository, kind) for repository, kind, _ in asked} == {
        ("FunAILab/TVBench", "dataset")
    }
    assert len(unpacked) == len(asked) == 10
    assert local_folder(TVBENCH.layout, tmp_path).root == tmp_path / "tvbench"


def test_hub_out_of_reach(tmp_path, monkeypatch):
    def fail(*_args, **_kwargs):
        raise OSError("no route\nto host")

    monkeypatch.setenv("MAPFLOW_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(
        MapflowError, match=r"^TVBench is not on this machine.*no route to host.*MAPFLOW_DATA"
    ) as error:
        fetch(TVBENCH.layout, "action_count")
    assert "\n" not in str(error.value)
    write_tvbench(tmp_path / "tvbench", {"action_count": [tvbench_row()]})
    assert fetch(TVBENCH.layout, "action_count").root == tmp_path / "tvbench"  # fetched before


def test_tomatos_questions_from_the_hubs_table(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("MAPFLOW_CACHE", str(tmp_path))
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda *_args, **_kwargs: str(tmp_path)
    )
    rows = datasets.Dataset.from_list([tomato_row(), tomato_row("0002-00")])
    monkeypatch.setattr("datasets.load_dataset", lambda repository, *, split: rows)
    folder = fetch(TOMATO.layout, "shape_trend")
    questions = TOMATO.questions(folder, "shape_trend")
    assert [question.video_id for question in questions] == ["human/0001-00", "human/0002-00"]
    assert load_questions("mapflow_tomato_shape_trend") == questions


def test_unknown_benchmark():
    with pytest.raises(MapflowError, match="no benchmark 'mvbench'; there are tvbench, tomato"):
        benchmark_with_files("mvbench")

"""Where videos are found: in folders, in the publishers' zip files, and nowhere else."""

import zipfile
from pathlib import Path

import pytest

from mapflow.model_adapters.video.reader import VideoError, read_frames
from mapflow.model_adapters.video.sampling import segment_midpoints
from mapflow.results.contract.archives import Archive, unpack_clip
from mapflow.results.contract.errors import MapflowError
from mapflow.tasks.data_check import check_data
from mapflow.tasks.data_folder import DataFolder, local_folder
from mapflow.tasks.registry import BENCHMARKS, load_questions

from .folders import put, tomato_row, tvbench_row, write_tomato, write_tvbench, write_zip

TVBENCH, TOMATO = BENCHMARKS["tvbench"].layout, BENCHMARKS["tomato"].layout


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MAPFLOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MAPFLOW_DATA", raising=False)


@pytest.mark.parametrize("below", ["", "tvbench", "TVBench"])
def test_found_in_the_data_folder_or_below_it(tmp_path, below):
    write_tvbench(tmp_path / below, {"action_count": [tvbench_row()]})
    assert local_folder(TVBENCH, tmp_path).root == tmp_path / below
    (question,) = load_questions("mapflow_tvbench_action_count", data_dir=tmp_path)
    assert question.clip.path == str(tmp_path / below / "video" / "action_count" / "clip.mp4")
    with pytest.raises(MapflowError, match="holds no TOMATO"):
        load_questions("mapflow_tomato", data_dir=tmp_path)


def test_a_data_folder_that_is_none(tmp_path):
    with pytest.raises(MapflowError, match="does not exist"):
        load_questions("mapflow_tvbench", data_dir=tmp_path / "absent")


@pytest.mark.parametrize(
    ("archive", "entry", "subtask", "name"),
    [
        ("video/action_count.zip", "clip.mp4", "action_count", "clip.mp4"),
        ("video/action_count.zip", "action_count/clip.mp4", "action_count", "clip.mp4"),
        ("video/egocentric_sequence.zip", "1.1/clip.MP4", "egocentric_sequence", "1.1/clip.MP4"),
        (
            "video/egocentric_sequence.zip",
            "egocentric_sequence/1.1/clip.MP4",
            "egocentric_sequence",
            "1.1/clip.MP4",
        ),
        ("video/egocentric_sequence/1.1.zip", "clip.MP4", "egocentric_sequence", "1.1/clip.MP4"),
        (
            "video/egocentric_sequence/1.1.zip",
            "1.1/clip.MP4",
            "egocentric_sequence",
            "1.1/clip.MP4",
        ),
        ("video.zip", "video/action_count/clip.mp4", "action_count", "clip.mp4"),
        ("video.zip", "action_count/clip.mp4", "action_count", "clip.mp4"),
    ],
)
def test_zips_are_read_as_they_are_and_unpack_to_the_same_place(
    tmp_path, archive, entry, subtask, name
):
    write_zip(tmp_path / archive, {entry: b"the video", "__MACOSX/x": b""})
    found = DataFolder(TVBENCH, tmp_path).video(subtask, name)
    assert found.exists and found.archive == tmp_path / archive
    assert found.archive is not None and found.entry is not None
    Archive.open(found.archive).extract(found.entry, found.path)
    assert found.path.read_bytes() == b"the video"
    (one,) = DataFolder(TVBENCH, tmp_path).all_archives()
    assert one.unpack() == 1
    unpacked = DataFolder(TVBENCH, tmp_path).video(subtask, name)
    assert unpacked.archive is None and unpacked.path.read_bytes() == b"the video"
    assert one.unpack() == 0


def test_never_another_subtasks_file(tmp_path):
    """Names recur over subtasks: one that is missing here must not be taken from there."""
    put(tmp_path / "video" / "object_count" / "video_1.mp4")
    write_zip(tmp_path / "video" / "moving_direction.zip", {"video_1.mp4": b""})
    write_zip(tmp_path / "video.zip", {"video/object_shuffle/video_1.mp4": b""})
    assert not DataFolder(TVBENCH, tmp_path).video("action_count", "video_1.mp4").exists


@pytest.mark.parametrize("name", ["loop.mp4", "n" * 300 + ".mp4"])
def test_a_name_that_cannot_be_opened_is_an_error_of_its_clip(tmp_path, name):
    write_tvbench(tmp_path, {"action_count": [tvbench_row(name), tvbench_row()]})
    put(tmp_path / "video" / "action_count" / "clip.mp4")
    (tmp_path / "video" / "action_count" / "loop.mp4").symlink_to("loop.mp4")
    bad, good = load_questions("mapflow_tvbench_action_count", data_dir=tmp_path)
    with pytest.raises(VideoError, match=r"loop\.mp4': no such file|File name too long"):
        read_frames(bad.clip, segment_midpoints, 8)
    assert Path(good.clip.path).is_file()
    checked = check_data(BENCHMARKS["tvbench"], DataFolder(TVBENCH, tmp_path))
    (subtask,) = [one for one in checked.subtasks if one.subtask == "action_count"]
    assert (subtask.questions, subtask.found, len(subtask.missing)) == (2, 1, 1)


@pytest.mark.parametrize("archive", ["videos.zip", "videos/human.zip"])
def test_tomato_zips(tmp_path, archive):
    write_tomato(tmp_path, {"count": [tomato_row()]})
    write_zip(tmp_path / archive, {"human/0001-00.mp4": b"the video"})
    (question,) = load_questions("mapflow_tomato_count", data_dir=tmp_path)
    assert not Path(question.clip.path).exists()
    unpack_clip(question.clip)
    assert Path(question.clip.path).read_bytes() == b"the video"
    assert load_questions("mapflow_tomato_count", data_dir=tmp_path) == [question]


def test_a_damaged_entry_is_an_error_of_its_clip(tmp_path):
    archive = write_zip(tmp_path / "video" / "action_count.zip", {"clip.mp4": b"0123456789" * 100})
    content = bytearray(archive.read_bytes())
    content[100:140] = b"x" * 40
    archive.write_bytes(content)
    write_tvbench(tmp_path, {"action_count": [tvbench_row()]})
    (question,) = load_questions("mapflow_tvbench_action_count", data_dir=tmp_path)
    with pytest.raises(
        VideoError, match=r"^video '.*clip\.mp4'.*action_count\.zip: entry .*damaged"
    ):
        read_frames(question.clip, segment_midpoints, 8)
    assert not Path(question.clip.path).exists()


def link_entry() -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo("link.mp4")
    entry.external_attr = 0o120777 << 16
    return entry


@pytest.mark.parametrize(
    "name",
    ["../clip.mp4", "a/../../clip.mp4", "/etc/clip.mp4", "..\\clip.mp4", "C:/clip.mp4", "~/x"],
)
def test_zips_that_reach_outside_are_refused(tmp_path, name):
    write_zip(tmp_path / "video" / "action_count.zip", {"fine.mp4": b"", name: b"evil"})
    with pytest.raises(MapflowError, match=r"action_count\.zip: refused.*outside"):
        DataFolder(TVBENCH, tmp_path).video("action_count", "fine.mp4")
    with pytest.raises(MapflowError, match="refused"):
        DataFolder(TVBENCH, tmp_path).all_archives()


def test_zips_with_links_are_refused(tmp_path):
    path = tmp_path / "video" / "action_count.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(link_entry(), "/etc/passwd")
    with pytest.raises(MapflowError, match="is a link"):
        DataFolder(TVBENCH, tmp_path).video("action_count", "link.mp4")


def test_a_file_that_is_no_zip(tmp_path):
    put(tmp_path / "video" / "action_count.zip", b"not a zip")
    with pytest.raises(MapflowError, match="not a readable zip"):
        DataFolder(TVBENCH, tmp_path).video("action_count", "clip.mp4")
    assert (
        not DataFolder(TVBENCH, tmp_path).video("object_count", "clip.mp4").exists
    )  # nobody else's trouble


def test_unpacking_through_a_link_is_refused(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    archive = write_zip(tmp_path / "data" / "video" / "action_count.zip", {"sub/clip.mp4": b"evil"})
    archive.with_suffix("").mkdir()
    archive.with_suffix("").joinpath("sub").symlink_to(outside)
    with pytest.raises(MapflowError, match="leads out of"):
        Archive.open(archive).unpack()
    assert not list(outside.iterdir())

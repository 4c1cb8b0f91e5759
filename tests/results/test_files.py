"""JSON objects and checksums, read the same way on every floor; output files."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.files import file_name, read_json, sha256, write_file


@pytest.mark.parametrize("content", ["{", "[1]", "", "[" * 100_000, "9" * 5000, "\x00"])
def test_what_is_not_a_json_object_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "manifest.json"
    path.write_text(content)
    with pytest.raises(MapflowError, match=r"manifest\.json") as refused:
        read_json(path)
    assert "\n" not in str(refused.value)


def test_an_absent_file_is_named_with_its_folder(tmp_path):
    with pytest.raises(MapflowError, match=f"folder {tmp_path} has no config.json"):
        read_json(tmp_path / "config.json")


def test_checksums_are_those_of_the_files_one_after_another(tmp_path):
    paths = [tmp_path / name for name in ("b", "a")]
    for path in paths:
        path.write_bytes(path.name.encode() * 5_000_000)
    joined = b"".join(path.read_bytes() for path in paths)
    assert sha256(paths) == hashlib.sha256(joined).hexdigest()


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    path.write_text("before")
    path.chmod(0o640)
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(MapflowError, match=r"table\.csv' cannot be written: full"):
        write_file(path, "after")
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]
    monkeypatch.undo()
    write_file(path, "after")
    assert path.read_text() == "after" and path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_links_are_followed_and_stay(tmp_path):
    (tmp_path / "there").mkdir()
    link = tmp_path / "link"
    link.symlink_to("there/table.csv")  # a target that does not exist yet
    for text in ("one", "two"):
        write_file(link, text)
        assert link.is_symlink() and (tmp_path / "there" / "table.csv").read_text() == text
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(MapflowError, match=r"loop' cannot be written"):
        write_file(loop, "text")


def test_devices_are_written_to_and_stay():
    write_file(Path("/dev/null"), "text")
    with pytest.raises(MapflowError, match=r"/dev/full' cannot be written: No space left"):
        write_file(Path("/dev/full"), "text")
    assert Path("/dev/null").is_char_device() and Path("/dev/full").is_char_device()


def test_pipes_are_written_to(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_text)
        write_file(pipe, "text" * 100_000)
        assert read.result() == "text" * 100_000
    assert pipe.is_fifo()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("absent/table.csv", "its folder does not exist"),
        ("", "Is a directory"),
        ("file/table.csv", "Not a directory"),
        ("n" * 300, "File name too long"),
    ],
)
def test_places_that_cannot_be_written(tmp_path, name, reason):
    (tmp_path / "file").touch()
    with pytest.raises(MapflowError, match=f"cannot be written: {reason}"):
        write_file(tmp_path / name, "text")
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_the_longest_name_can_be_written(tmp_path):
    write_file(tmp_path / ("n" * 255), "text")
    assert (tmp_path / ("n" * 255)).read_text() == "text"


@settings(deadline=None)
@given(st.lists(st.text(max_size=200), unique=True, min_size=2, max_size=6))
def test_names_of_files_are_plain_and_apart(texts):
    names = [file_name(text) for text in texts]
    assert len(set(names)) == len(names)
    for name in names:
        assert name.isascii() and name.isprintable() and 0 < len(name) <= 100
        assert not set(name) & set('/\\:*?"<>| ') and not name.startswith(".")


@pytest.mark.parametrize("text", ["\ud800", "..", "../x", "-" * 500])
def test_names_that_are_traps(text):
    name = file_name(text)
    assert name != text and ".." not in name and "/" not in name and len(name) < 100


@pytest.mark.parametrize("text", ["full", "early-exit@20", "effective"])
def test_plain_names_stay(text):
    assert file_name(text) == text

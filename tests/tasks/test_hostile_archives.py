"""Hostile zip files are refused, or never write more than they claim."""

import io
import struct
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mapflow.results.contract import archives
from mapflow.results.contract.archives import Archive
from mapflow.results.contract.errors import MapflowError

from .folders import write_zip


def refused(path, why: str) -> None:
    with pytest.raises(MapflowError, match=why) as error:
        Archive.open(path)
    assert str(error.value).isprintable()
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../clip.mp4", "outside"),
        ("a/../../clip.mp4", "outside"),
        ("a/..", "outside"),
        ("/etc/clip.mp4", "outside"),
        ("//server/clip.mp4", "outside"),
        ("~/clip.mp4", "outside"),
        ("~root/clip.mp4", "outside"),
        ("..\\clip.mp4", "outside"),
        ("\\clip.mp4", "outside"),
        ("C:/clip.mp4", "outside"),
        ("C:clip.mp4", "outside"),
        (".", "outside"),
        ("clip\x1b]0;owned\x07.mp4", "not a valid file name"),
        ("clip\u202e4pm.mp4", "not a valid file name"),
        ("clip\n.mp4", "not a valid file name"),
        ("a" * 256, "not a valid file name"),
        ("日" * 100, "not a valid file name"),
        ("a/" * 600 + "clip.mp4", "not a valid file name"),
    ],
)
def test_names(tmp_path, name, why):
    refused(write_zip(tmp_path / "clips.zip", {"fine.mp4": b"", name: b"evil"}), why)


def test_a_name_that_zipfile_would_cut_at_its_nul(tmp_path):
    path = write_zip(tmp_path / "clips.zip", {"clip.mp4Xpng": b"evil"})
    path.write_bytes(path.read_bytes().replace(b"clip.mp4X", b"clip.mp4\0"))
    refused(path, "not a valid file name|not a readable zip")


@pytest.mark.parametrize(
    ("mode", "why"), [(0o120777, "is a link"), (0o010644, "device"), (0o020644, "device")]
)
def test_what_is_no_plain_file(tmp_path, mode, why):
    entry = zipfile.ZipInfo("clip.mp4")
    entry.external_attr = mode << 16
    with zipfile.ZipFile(tmp_path / "clips.zip", "w") as archive:
        archive.writestr(entry, "/etc/passwd")
    refused(tmp_path / "clips.zip", why)


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
@pytest.mark.parametrize("again", ["clip.mp4", "./clip.mp4", "a/../clip.mp4", "clips/clip.mp4"])
def test_the_same_place_twice(tmp_path, again):
    with zipfile.ZipFile(tmp_path / "clips.zip", "w") as archive:
        for name in ("clip.mp4", again):
            archive.writestr(name, name)
    if (
        again == "clips/clip.mp4"
    ):  # another place: the outer folder is left away only where it holds everything
        assert len(Archive.open(tmp_path / "clips.zip").entries) == 2
    else:
        refused(tmp_path / "clips.zip", "twice|outside")


def bomb(path, size: int) -> None:
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("clip.mp4", "w") as entry,
    ):
        for _ in range(size >> 20):
            entry.write(bytes(1 << 20))


def test_a_bomb_is_refused_by_what_it_claims(tmp_path):
    bomb(tmp_path / "clips.zip", 128 << 20)
    assert (tmp_path / "clips.zip").stat().st_size < 1 << 20
    refused(tmp_path / "clips.zip", "more than 50 times as many")


def test_a_bomb_that_lies_writes_no_more_than_it_claims(tmp_path):
    path = tmp_path / "clips.zip"
    bomb(path, 128 << 20)
    content = bytearray(path.read_bytes())
    central = content.rindex(b"PK\1\2")
    struct.pack_into("<I", content, central + 24, 1000)  # the size that the directory claims
    path.write_bytes(content)
    archive = Archive.open(path)
    assert archive.entries == {"clip.mp4": ("clip.mp4", 1000)}
    with pytest.raises(MapflowError, match="damaged"):
        archive.unpack()
    assert not [file for file in archive.folder.rglob("*") if file.is_file()]


def test_entries_that_share_their_bytes_are_no_way_around(tmp_path):
    """Overlapping entries (Fifield, 2019): each claims a modest size, their sum is refused."""
    path = tmp_path / "clips.zip"
    bomb(path, 16 << 20)
    content = path.read_bytes()
    start, end = content.index(b"PK\1\2"), content.index(b"PK\5\6")
    one, copies = content[start:end], []
    for number in range(100):
        copies.append(one.replace(b"clip.mp4", f"cl{number:02}.mp4".encode()))
    tail = bytearray(content[end:])
    struct.pack_into("<HHI", tail, 8, 100, 100, sum(map(len, copies)))
    path.write_bytes(content[:start] + b"".join(copies) + tail)
    refused(path, "more than 50 times as many|not a readable zip")


def test_too_many_entries(tmp_path, monkeypatch):
    path = write_zip(tmp_path / "clips.zip", {f"{number}.mp4": b"" for number in range(11)})
    monkeypatch.setattr(archives, "MOST_ENTRIES", 11)
    assert len(Archive.open(path).entries) == 11
    monkeypatch.setattr(archives, "MOST_ENTRIES", 10)
    refused(path, "11 entries; 10 are allowed")


def test_a_zip_within_a_zip_is_a_file_and_stays_one(tmp_path):
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("../evil.mp4", "evil")
    archive = Archive.open(write_zip(tmp_path / "clips.zip", {"inner.zip": inner.getvalue()}))
    assert archive.unpack() == 1
    assert [file.name for file in archive.folder.iterdir()] == ["inner.zip"]


def test_a_file_where_another_entry_wants_a_folder(tmp_path):
    archive = Archive.open(write_zip(tmp_path / "clips.zip", {"a": b"1", "a/b": b"2"}))
    with pytest.raises(MapflowError, match="cannot be unpacked"):
        archive.unpack()


def test_encrypted_entries(tmp_path):
    path = write_zip(tmp_path / "clips.zip", {"clip.mp4": b"0123"})
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(content)
    refused(path, "encrypted")


FINE = io.BytesIO()
with zipfile.ZipFile(FINE, "w", zipfile.ZIP_DEFLATED) as small:
    small.writestr("a/clip.mp4", b"0123456789" * 20)
    small.writestr("b.mp4", b"")


@pytest.fixture(scope="module")
def mutated(tmp_path_factory):
    return tmp_path_factory.mktemp("mutated")


@given(
    st.lists(st.tuples(st.integers(0, len(FINE.getvalue()) - 1), st.integers(0, 255)), max_size=6),
    st.booleans(),
)
@settings(max_examples=400, deadline=None)
def test_any_changed_bytes_are_read_or_refused(mutated, changes, cut):
    content = bytearray(FINE.getvalue())
    for place, value in changes:
        content[place] = value
    path = mutated / "clips.zip"
    path.write_bytes(content[: changes[0][0]] if cut and changes else content)
    try:
        archive = Archive.open(path)
        for inner, (entry, size) in archive.entries.items():
            target = mutated / "out" / "clip"
            assert ".." not in inner.split("/") and not inner.startswith("/")
            archive.extract(entry, target)
            assert target.stat().st_size == size
            target.unlink()
    except MapflowError:
        pass

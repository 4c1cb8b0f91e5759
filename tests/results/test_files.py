"""JSON objects and checksums, read the same way on every floor."""

import hashlib

import pytest

from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.files import read_json, sha256


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

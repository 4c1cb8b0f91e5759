"""Temporary run folders: claimed while in use, removed once their process was killed."""

import os
import subprocess
import sys
import tempfile

import pytest

from mapflow.results.runs.temporary import YOUNG, shared_temporary, temporary_folder

MAKE = (
    "import time\nfrom mapflow.results.runs.temporary import shared_temporary\n"
    "folder, held = shared_temporary()\nprint(folder, flush=True)\ntime.sleep(60)"
)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def made_old(folder):
    os.utime(folder, (0, 0))


def test_a_killed_process_s_folder_is_removed_by_the_next_one(place):
    process = subprocess.Popen([sys.executable, "-c", MAKE], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    left = place / process.stdout.readline().strip()
    (left / "records.jsonl").write_text("{}\n")
    made_old(left)
    with temporary_folder() as other:
        assert left.exists() and other.exists(), "its process is alive"
    process.kill()
    process.wait()
    with temporary_folder():
        assert not left.exists() and not other.exists()
    assert list(place.iterdir()) == []


def test_folders_of_others_stay(place):
    strange, linked, young = (place / f"mapflow-{name}" for name in ("strange", "linked", "young"))
    strange.mkdir()
    (place / "precious").mkdir()
    (place / "precious" / ".lock").touch()
    linked.symlink_to(place / "precious")
    young.mkdir()
    (young / ".lock").touch()
    for folder in (strange, place / "precious"):
        made_old(folder)
    own, held = shared_temporary()
    made_old(own)
    shared, also_held = shared_temporary("job")
    made_old(shared)
    shared_temporary("job")
    assert held is not also_held and YOUNG > 0
    assert {one.name for one in place.iterdir()} == {
        "precious", "mapflow-strange", "mapflow-linked", "mapflow-young", "mapflow-job", own.name
    }  # fmt: skip

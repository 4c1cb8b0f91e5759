"""The commit of the running code: clean, dirty, or none."""

import subprocess

from mapflow.results.runs.provenance import git_state


def git(folder, *words):
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    subprocess.run(["git", "-C", folder, *identity, *words], check=True, capture_output=True)


def test_clean_dirty_untracked_and_outside(tmp_path):
    file = tmp_path / "code.py"
    file.write_text("1")
    assert git_state(file) is None
    git(tmp_path, "init")
    (tmp_path / "other.py").write_text("1")
    git(tmp_path, "add", "other.py")
    git(tmp_path, "commit", "-m", "x")
    assert git_state(file) is None, "not tracked: a stranger's checkout"
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "-m", "y")
    head = subprocess.run(
        ["git", "-C", tmp_path, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert git_state(file) == head[:12]
    file.write_text("2")
    assert git_state(file) == f"{head[:12]} dirty"

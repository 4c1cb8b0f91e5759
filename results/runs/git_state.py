"""Which state of the code is running, where it runs from a git checkout."""

from __future__ import annotations

import subprocess
from pathlib import Path


def git_state(file: Path = Path(__file__)) -> str | None:
    """The commit that `file` belongs to, with "dirty" behind it where tracked files differ; None outside a checkout.

    A file that git does not track belongs to nobody's commit: an installed package may lie inside a stranger's checkout.
    """
    place = file.resolve()

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(place.parent), *words],
                capture_output=True,
                text=True,
                timeout=10,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "--short=12", "HEAD")
    if commit is None or git("ls-files", "--error-unmatch", place.name) is None:
        return None
    return f"{commit} dirty" if git("status", "--porcelain", "--untracked-files=no") else commit

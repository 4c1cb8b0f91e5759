"""Executes the README's blocks top to bottom as a newcomer would, and prints the time of each.

    python -m tests.pages.fresh_readme [--keep FOLDER]

The repository without its history (`git archive HEAD`) is unpacked into a new folder; there one
shell runs every block, installation included, without any variable of this environment but PATH,
HOME, LANG and those of pip. `$DIR` and `$DATA` are set as the README says: the bundled model, and
a small data folder in the publishers' layout. Exit code 1 at the first block that fails.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

from tests.pages.blocks import INSTALL, ROOT, RUN_IN_PYTHON, RUN_IN_SHELL, blocks
from tests.pages.playground import write_data

KEPT = ("PATH", "HOME", "LANG")


def script(times: Path) -> str:
    """One shell script of all blocks that run, which notes the time after each."""
    lines = ["set -eo pipefail", f'echo "$EPOCHREALTIME 0 start" >>{times}']
    for block in blocks(ROOT / "README.md"):
        code = block.code.rstrip()
        if block.kind == RUN_IN_PYTHON:
            lines.append(f"python - <<'END'\n{code}\nEND")
        elif block.kind in (RUN_IN_SHELL, INSTALL):
            lines.append(code)
        else:
            continue
        first = shlex.quote(code.splitlines()[-1 if block.kind == INSTALL else 0][:60])
        noted = f'echo "$EPOCHREALTIME {block.line} "{first} >>{times}'
        lines.append(noted)
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--keep", type=Path, help="work here, and keep the folder")
    kept = parser.parse_args().keep
    with tempfile.TemporaryDirectory() as temporary:
        place = (kept or Path(temporary)).absolute()
        folder, times = place / "mapflow", place / "times"
        folder.mkdir(parents=True)
        archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, stdout=-1, check=True)
        subprocess.run(["tar", "-x"], cwd=folder, input=archive.stdout, check=True)
        write_data(place / "data")
        environment = {
            name: value for name, value in os.environ.items() if name in KEPT or "PIP_" in name
        }
        environment |= {
            "PATH": os.pathsep.join(
                one for one in environment["PATH"].split(os.pathsep) if ".venv" not in one
            ),
            "DIR": "model_adapters/mini/pathways",
            "DATA": str(place / "data"),
        }
        command = ["bash", "-c", script(times)]
        done = subprocess.run(command, cwd=folder, env=environment, check=False)
        print_times(times)
        return int(done.returncode != 0)


def print_times(times: Path) -> None:
    """As a Markdown table."""
    noted = [line.split(maxsplit=2) for line in times.read_text(encoding="utf-8").splitlines()]
    print("| README line | begins with | seconds |\n|---|---|---|")
    for (before, *_), (after, line, *first) in pairwise(noted):
        print(f"| {line} | `{''.join(first)}` | {float(after) - float(before):.0f} |")


if __name__ == "__main__":
    sys.exit(main())

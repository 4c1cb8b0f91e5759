"""How long a user waits before anything heavy is needed.

    python -m tests.benchmarks.start_up --out FILE

Medians over fresh processes: importing mapflow, refusing a misspelt intervention by each command,
and a command's help. An empty Python process is measured beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

EVALUATE = ("-m", "mapflow.harness.evaluation.lmms_eval", "--model", "mapflow_llava")
COMMANDS = {
    "empty process": (0, ("-c", "pass")),
    "import mapflow": (0, ("-c", "import mapflow")),
    "lmms_eval --intervention efective": (2, (*EVALUATE, "--intervention", "efective")),
    "mapflow explain efective": (2, ("-m", "mapflow", "explain", "efective")),
    "mapflow trace --intervention efective": (
        2,
        ("-m", "mapflow", "trace", "--intervention", "efective", "--output_path", os.devnull),
    ),
    "mapflow --help": (0, ("-m", "mapflow", "--help")),
}


def seconds(command: tuple[str, ...], expected: int) -> float:
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *command], capture_output=True, check=False)
    taken = time.perf_counter() - start
    assert done.returncode == expected, done.stderr.decode()
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description="time to the first answer of cheap commands")
    parser.add_argument("--repeats", type=int, default=7, help="processes each (default: 7)")
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    for name, (expected, command) in COMMANDS.items():
        seconds(command, expected)  # reads the files once
        times = sorted(seconds(command, expected) for _ in range(options.repeats))
        found[name] = {"median": statistics.median(times), "slowest": times[-1]}
        print(f"{name:40} {found[name]['median']:.2f} s (slowest {times[-1]:.2f})", flush=True)
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

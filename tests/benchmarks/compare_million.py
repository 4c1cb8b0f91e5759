"""How long does it take to compare two runs of a million questions, and how much memory?

    python tests/benchmarks/compare_million.py

Columns in, verdict out: pairing by question id in shuffled order, 150,000 videos as clusters, ten subtasks as strata. Prints JSON:
seconds of wall clock and of processor time, peak memory of the process.
"""

import json
import time
from pathlib import Path

import numpy as np

from mapflow.results.statistics import RunOutcomes, compare_runs

N = 1_000_000


def peak_gib() -> float:
    """This program's largest memory so far. (getrusage's figure begins at that of the process which started it.)"""
    status = Path("/proc/self/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 2**20


def main() -> None:
    rng = np.random.default_rng(0)
    ids = np.array([f"benchmark/{i:07d}" for i in range(N)])
    video = np.array([f"video{i:06d}.mp4" for i in rng.integers(0, 150_000, N)])
    task = np.array([f"task{i}" for i in rng.integers(0, 10, N)])
    gold = np.array(list("ABCD"))[rng.integers(0, 4, N)]
    full = rng.random(N) < 0.5
    effective = np.where(rng.random(N) < 0.1, ~full, full)

    def run(name: str, correct: np.ndarray, rows: np.ndarray) -> RunOutcomes:
        return RunOutcomes(name, ids[rows], correct[rows], video[rows], task[rows], gold[rows])

    shuffled = rng.permutation(N)
    wall, processor = time.perf_counter(), time.process_time()
    found = compare_runs(run("full", full, np.arange(N)), run("effective", effective, shuffled))
    measured = {
        "questions": found.n,
        "wall_seconds": time.perf_counter() - wall,
        "processor_seconds": time.process_time() - processor,
        "peak_gib": peak_gib(),
    }
    print(json.dumps(measured))


if __name__ == "__main__":
    main()

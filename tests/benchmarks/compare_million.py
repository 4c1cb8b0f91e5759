"""Time and memory of comparing two experiments with a million questions each.

    python tests/benchmarks/compare_million.py

Measures from columns to verdict: pairing by question id in shuffled order, 150,000 videos as
clusters, ten subtasks as strata. Prints JSON: seconds of wall clock and processor time, and the
peak memory of the process.
"""

import json
import time
from pathlib import Path

import numpy as np

from mapflow.results.statistics import RunOutcomes, compare_runs

N = 1_000_000


def peak_gib() -> float:
    """Peak memory of this program. getrusage would begin at the peak of the parent process."""
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

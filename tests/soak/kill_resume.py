"""Kills the main job repeatedly, resumes it, and compares its files with an uninterrupted run.

    python -m tests.soak.kill_resume --kills 100 --seed 0

Each try starts the command, in one process or under torchrun in two, and ends it with SIGKILL: all
processes or one worker, during start-up or while answering. After every kill, the earlier records
must still exist and every line must be complete. A run that finishes is compared with the
uninterrupted one byte by byte, and the next try begins in an empty folder. Prints one line per try
and a summary as JSON. Exit code 1 on the first difference.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mapflow.results.runs.folder import RECORDS, SUMMARY

MARK = "MAPFLOW_SOAK"
WORDS = ("-m", "mapflow.harness.evaluation.lmms_eval", "--model", "mapflow_llava", "--intervention")


class Job:
    """The running command, in `workers` processes. `output` receives what it prints."""

    def __init__(
        self, folder: Path, workers: int, options: argparse.Namespace, output: Path
    ) -> None:
        self._mark = uuid.uuid4().hex
        launcher = (
            [sys.executable]
            if workers == 1
            else [str(Path(sys.executable).parent / "torchrun"), "--nproc_per_node", str(workers)]
        )
        words = [
            *launcher,
            *WORDS,
            options.intervention,
            "--limit",
            str(options.limit),
            "--output_path",
        ]
        own = {
            MARK: self._mark,
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
        }
        with output.open("w") as file:
            self.process = subprocess.Popen(
                [*words, str(folder)], env=os.environ | own, stdout=file, stderr=subprocess.STDOUT
            )

    def members(self) -> list[int]:
        """All living processes of the job: the launcher, its workers and their children."""
        mark = f"{MARK}={self._mark}".encode()
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # has ended, or belongs to another user
                if mark in (place / "environ").read_bytes().split(b"\0"):
                    found.append(int(place.name))
        return found

    def workers(self) -> list[int]:
        """The children of the launcher, or the only process."""
        children = [pid for pid in self.members() if _parent(pid) == self.process.pid]
        return children or [self.process.pid]

    def kill(self, victims: list[int]) -> None:
        for pid in victims:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def kill_all(self) -> None:
        while members := self.members():
            self.kill(members)
            self.process.poll()
            time.sleep(0.05)


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


@dataclass
class Uninterrupted:
    """Files and table of an uninterrupted run, and its seconds to the first record and in total."""

    files: dict[str, bytes]
    table: str
    start_up: float
    seconds: float


def finished(folder: Path, output: Path) -> tuple[dict[str, bytes], str]:
    """The files of a finished run and the table that it printed."""
    printed = output.read_text()
    table = printed[printed.rindex("\nintervention ") :].partition("\n\n")[0]
    return {name: (folder / name).read_bytes() for name in (RECORDS, SUMMARY)}, table


def uninterrupted(options: argparse.Namespace, place: Path) -> Uninterrupted:
    begun = time.monotonic()
    job = Job(place / "uninterrupted", 1, options, place / "uninterrupted.log")
    while job.process.poll() is None and not whole_lines(place / "uninterrupted"):
        time.sleep(0.02)
    start_up = time.monotonic() - begun
    if job.process.wait() != 0:
        raise SystemExit((place / "uninterrupted.log").read_text())
    seconds = time.monotonic() - begun
    return Uninterrupted(
        *finished(place / "uninterrupted", place / "uninterrupted.log"), start_up, seconds
    )


def whole_lines(folder: Path) -> set[bytes]:
    """The complete records. The last line may be partly written."""
    file = folder / RECORDS
    lines = file.read_bytes().split(b"\n")[:-1] if file.is_file() else []
    for line in lines:
        json.loads(line)
    return set(lines)


def wait_for_the_moment(job: Job, folder: Path, truth: Uninterrupted, chance: random.Random) -> str:
    """Waits for the time of a kill: half at any time of a run, half while it answers."""
    if chance.random() < 0.5:
        ends, moment = time.monotonic() + chance.uniform(0.0, truth.seconds), "any time"
        while job.process.poll() is None and time.monotonic() < ends:
            time.sleep(0.01)
        return moment
    total = truth.files[RECORDS].count(b"\n")
    wanted = len(whole_lines(folder)) + chance.randint(1, max(1, total // 4))
    while (
        job.process.poll() is None and len(whole_lines(folder)) < wanted
    ):  # beyond the last record, the run just ends
        time.sleep(0.002)
    time.sleep(chance.uniform(0.0, 0.1))
    return "answering"


def strike(job: Job, who: str, chance: random.Random, patience: float) -> float:
    """Kills the job or one worker; returns the seconds until all processes have ended.

    Raises SystemExit if a process does not end.
    """
    if who == "all":
        job.kill_all()
    else:
        job.kill([chance.choice(job.workers())])
    begun = time.monotonic()
    while job.process.poll() is None or job.members():
        if time.monotonic() - begun > patience:
            raise SystemExit(
                f"{who} was killed, but other processes are alive after {patience:g} s"
            )
        time.sleep(0.02)
    return time.monotonic() - begun


def soak(options: argparse.Namespace, place: Path) -> dict[str, object]:
    """Runs the test and returns its figures. Raises SystemExit on the first difference."""
    chance = random.Random(options.seed)
    begun = time.monotonic()
    truth = uninterrupted(options, place)
    print(
        f"uninterrupted: {truth.seconds:.1f} s, {truth.start_up:.1f} s of it to the first record",
        flush=True,
    )
    kills: Counter[str] = Counter()
    ends: list[float] = []
    tries = completed = 0
    while True:
        tries += 1
        last = sum(kills.values()) >= options.kills
        folder, output = place / f"run-{completed}", place / f"try-{tries}.log"
        before, workers = whole_lines(folder), chance.choice((1, 2))
        job = Job(folder, workers, options, output)
        what = "left alone" if last else wait_for_the_moment(job, folder, truth, chance)
        if last:
            job.process.wait()
        elif job.process.poll() is None:
            who = chance.choice(("all", "one worker"))
            seconds = strike(job, who, chance, options.patience)
            if job.process.returncode != 0:  # otherwise it had finished before the kill
                what = f"{who} of {workers} killed, {what}"
                kills[what] += 1
                ends.append(seconds)
        code, kept = job.process.returncode, whole_lines(folder)
        print(
            f"try {tries}: {workers} workers, {what}, exit {code}, {len(kept)} records", flush=True
        )
        if not before <= kept:
            raise SystemExit(f"try {tries}: {len(before - kept)} records were lost")
        if code == 0:
            if finished(folder, output) != (truth.files, truth.table):
                raise SystemExit(f"try {tries}: {folder.name} differs from the uninterrupted run")
            completed += 1
            if last:
                break
        elif "killed" not in what:
            raise SystemExit(f"try {tries}: exit code {code}\n{output.read_text()}")
    return {
        "kills": sum(kills.values()),
        "kinds": dict(sorted(kills.items())),
        "runs completed and identical": completed,
        "tries": tries,
        "records a run": truth.files[RECORDS].count(b"\n"),
        "longest wait for the rest to end (s)": round(max(ends, default=0.0), 1),
        "seconds": round(time.monotonic() - begun),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--limit", type=int, default=8, help="questions per subtask (five subtasks)"
    )
    parser.add_argument("--intervention", default="full,random")
    parser.add_argument(
        "--patience", type=float, default=120.0, help="seconds until all processes must have ended"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mapflow-soak-") as place:
        print(json.dumps(soak(options, Path(place)), indent=2))


if __name__ == "__main__":
    main()

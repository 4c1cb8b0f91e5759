"""Speedup by 1, 2 and 4 processes with one GPU each; checks that records are bit-identical.

    python -m tests.benchmarks.scale_out --processes 1 2                                    # small,
    on a CPU python -m tests.benchmarks.scale_out --size 7b --questions 96 --processes 1 2 4
    # as many GPUs

Each number of processes is one torchrun. `Shard.share` distributes the questions, and all processes
write into one folder, as in an experiment. Every process builds its model, answers one question to
warm up and waits for the others. The clock runs from there to the last record.

Processes of one host share its cores, so decoding must be light enough for all of them
(`throughput.py` measures one thread). More `--processes` than GPUs are refused. On a CPU each
process takes one thread.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from mapflow.harness.analyses.run import Shard
from mapflow.model_adapters.interventions import parse_interventions
from mapflow.results.runs.folder import sort_records
from tests.benchmarks.procedures import hardware
from tests.benchmarks.video_runs import (
    SCENES,
    answer_into,
    device_here,
    questions,
    random_llava,
    write_clips,
)


def work(place: Path, size: str, n: int, interventions: str, repeats: int) -> None:
    """The work of one process: its share into `place/run…`, its times into `place`."""
    distributed.init_process_group("gloo")
    shard = Shard.from_environment()
    device, dtype = device_here()
    if device == "cpu":
        torch.set_num_threads(1)
    model = random_llava(SCENES[size].size, device, dtype)
    clips = sorted((place.parent / "clips").glob("*.mp4"))
    asked, chosen = questions(clips, n), parse_interventions([interventions])
    share = shard.share(asked)
    answer_into(place / f"warm{shard.rank}", model, asked[:1], chosen)
    times = []
    for repeat in range(repeats):
        distributed.barrier()
        begun = time.time()
        answer_into(place / f"run{repeat}", model, share, chosen)
        times.append((begun, time.time()))
        distributed.barrier()
    (place / f"times{shard.rank}.json").write_text(json.dumps(times))
    distributed.destroy_process_group()


def launch(processes: int, place: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of the whole experiment (median), and a digest of its sorted records per repeat."""
    place.mkdir()
    arguments = [
        "--work", place, "--size", options.size, "--questions", options.questions,
        "--interventions", options.interventions, "--repeats", options.repeats,
    ]  # fmt: skip
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        processes,
    ]
    subprocess.run(
        [str(part) for part in (*torchrun, "-m", "tests.benchmarks.scale_out", *arguments)],
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    each = [json.loads(file.read_text()) for file in sorted(place.glob("times*.json"))]
    seconds = [
        max(end for _, end in turn) - min(begun for begun, _ in turn)
        for turn in zip(*each, strict=True)
    ]
    digests = set()
    for repeat in range(options.repeats):
        assert len(sort_records(place / f"run{repeat}")) == options.questions * len(
            parse_interventions([options.interventions])
        )
        digests.add(
            hashlib.sha256((place / f"run{repeat}" / "records.jsonl").read_bytes()).hexdigest()
        )
    return {
        "processes": processes,
        "seconds": statistics.median(seconds),
        "digests": sorted(digests),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=list(SCENES), default="small")
    parser.add_argument("--questions", type=int, default=12)
    parser.add_argument("--interventions", default="full,effective,random")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work, options.size, options.questions, options.interventions, options.repeats)
        return 0
    if torch.cuda.is_available() and max(options.processes) > torch.cuda.device_count():
        parser.error(
            f"--processes {max(options.processes)}, but there are {torch.cuda.device_count()} GPUs"
        )
    found: dict[str, Any] = {"hardware": hardware(), "cores": os.cpu_count(), "size": options.size}
    found |= {"questions": options.questions, "interventions": options.interventions, "runs": []}
    with tempfile.TemporaryDirectory(prefix="mapflow-scale-") as folder:
        clips = Path(folder) / "clips"
        clips.mkdir()
        write_clips(SCENES[options.size], clips)
        for processes in options.processes:
            row = launch(processes, Path(folder) / f"by{processes}", options)
            found["runs"].append(row)
            row["speedup"] = found["runs"][0]["seconds"] / row["seconds"]
            print(
                f"{processes} processes: {row['seconds']:.2f} s, {row['speedup']:.2f} ×", flush=True
            )
            if options.out:
                options.out.write_text(json.dumps(found, indent=1))
    found["identical_records"] = (
        len({digest for row in found["runs"] for digest in row["digests"]}) == 1
    )
    if options.out:
        options.out.write_text(json.dumps(found, indent=1))
    print(f"records of all runs identical: {found['identical_records']}")
    return int(not found["identical_records"])


if __name__ == "__main__":
    sys.exit(main())

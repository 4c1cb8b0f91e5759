"""Pace of an ordinary experiment: GPU utilisation, and the cost of a question besides the GPU.

    python -m tests.benchmarks.throughput                                               # small, on
    a CPU python -m tests.benchmarks.throughput --size 7b --questions 64                      # one
    GPU, 1080p clips python -m tests.benchmarks.throughput --size 7b --interventions
    full,effective,random

Loaded questions are answered without pause as the upper bound of the pace. Their time divided by
that of the experiment, measured alternately, is the share of the time in which the device has work.
On a CPU, which also decodes, this figure only tests the program. The first questions wait for their
clips: `steady` omits the first third.

Two more figures: loading without answering, which is the other bound; and, from torch's profiler
over another experiment, kernel time divided by wall time, which the profiler itself lowers. The
host's milliseconds per question are those of the thread that drives the device.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from mapflow.model_adapters.families.llava.model import LlavaVideo
from mapflow.model_adapters.inference.answering import begin
from mapflow.model_adapters.inference.run_loop import one_behind
from mapflow.model_adapters.interventions import parse_interventions
from mapflow.model_adapters.video_llm import Prepared
from mapflow.results.contract.question import Question
from mapflow.results.runs.folder import RunFolder
from tests.benchmarks.procedures import clock, hardware
from tests.benchmarks.video_runs import (
    SCENES,
    answer_into,
    device_here,
    loading_seconds,
    preparing_seconds,
    questions,
    random_llava,
    threads_here,
    write_clips,
)


class Bench:
    def __init__(
        self,
        model: LlavaVideo,
        asked: Sequence[Question],
        interventions: str,
        batch_size: int,
        place: Path,
    ) -> None:
        self.model, self.asked, self.batch_size, self.place = model, asked, batch_size, place
        self.interventions = parse_interventions([interventions])
        self.runs = 0

    def run(self) -> None:
        """The whole experiment: reads clips, answers questions, writes records."""
        self.runs += 1
        self.moments: list[float] = []
        place = self.place / f"run{self.runs}"
        answer_into(
            place, self.model, self.asked, self.interventions, self.batch_size, self.moments
        )

    def steady_seconds(self) -> float:
        """Seconds per question of the last experiment, without its first third."""
        first, last = len(self.moments) // 3, len(self.moments) - 1
        return (self.moments[last] - self.moments[first]) / (last - first)

    def alone_and_run(self, repeats: int) -> list[tuple[float, float, float]]:
        """Seconds per question for each repeat.

        Three figures: loaded questions with answers read one behind, the whole experiment, and its
        last two thirds.
        """
        ready = [self.model.prepare(question) for question in self.asked[: max(8, self.batch_size)]]
        batches = [ready[i : i + self.batch_size] for i in range(0, len(ready), self.batch_size)]

        def answer_all() -> None:
            for read in one_behind(
                begin(self.model, batch, self.interventions) for batch in batches
            ):
                read()

        self.run()
        answer_all()
        return [
            (
                clock(answer_all, 1, warm_up=0)[0] / len(ready),
                clock(self.run, 1, warm_up=0)[0] / len(self.asked),
                self.steady_seconds(),
            )
            for _ in range(repeats)
        ]

    def host_ms(self) -> dict[str, float]:
        """Median milliseconds per question on the host, by part, with an idle device."""
        (ready,) = (self.model.prepare(question) for question in self.asked[:1])
        run = RunFolder(self.place / "host", {"benchmark": "random weights"}, {})
        times: dict[str, list[float]] = {
            "compile": [],
            "hand_over": [],
            "make_records": [],
            "write_records": [],
        }
        for _ in range(9):
            self._step(ready, run, times)
        return {name: statistics.median(found[2:]) * 1e3 for name, found in times.items()}

    def _step(self, ready: Prepared, run: RunFolder, times: dict[str, list[float]]) -> None:
        layers, pathways = self.model.decoder.n_layers, self.model.pathways

        def compile_all() -> None:
            for one in self.interventions:
                one.compile(ready.layout, layers, pathways, ready.question.question_id)

        def timed(name: str, work: Callable[[], Any]) -> Any:
            begun = time.perf_counter()
            result = work()
            times[name].append(time.perf_counter() - begun)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            return result

        timed("compile", compile_all)
        read = timed("hand_over", lambda: begin(self.model, [ready], self.interventions))
        (records,) = timed("make_records", read)
        timed("write_records", lambda: run.append(records))

    def waits(self) -> list[str]:
        """Code lines where the host waits for the device while it submits a question."""
        ready = self.model.prepare(self.asked[0])
        begin(self.model, [ready], self.interventions)()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                read = begin(self.model, [ready], self.interventions)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        read()
        seen = Counter(
            f"{Path(one.filename).name}:{one.lineno}"
            for one in caught
            if "synchroni" in str(one.message)
        )
        return [f"{place} × {count}" for place, count in seen.most_common()]

    def kernel_share(self) -> float:
        """Kernel seconds divided by wall seconds, under torch's profiler."""
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            begun = time.perf_counter()
            self.run()
            wall = time.perf_counter() - begun
        rows = profile.key_averages()
        return sum(row.self_device_time_total for row in rows) / 1e6 / wall


def measure(bench: Bench, device: str, repeats: int) -> dict[str, Any]:
    n = len(bench.asked)
    pairs = bench.alone_and_run(repeats)
    alone, run, steady = (statistics.median(each) for each in zip(*pairs, strict=True))
    preparing, threads = preparing_seconds(bench.model, bench.asked[:4]), threads_here(device)
    found = {
        "questions": n,
        "batch_size": bench.batch_size,
        "interventions": [str(one) for one in bench.interventions],
        "positions": len(bench.model.prepare(bench.asked[0]).layout),
        "ms_a_question": run * 1e3,
        "ms_a_question_each": [whole * 1e3 for _, whole, _ in pairs],
        "questions_a_second": 1 / run,
        "ms_device_alone": alone * 1e3,
        "device_busy": statistics.median(one / whole for one, whole, _ in pairs),
        "ms_a_question_steady": steady * 1e3,
        "device_busy_steady": statistics.median(one / rest for one, _, rest in pairs),
        "ms_loading_alone": loading_seconds(bench.model, bench.asked) * 1e3,
        "ms_preparing_on_one_thread": preparing * 1e3,
        "threads": threads,
        "host_ms": bench.host_ms(),
    }
    if device != "cpu":
        found["host_waits_for_device_at"] = bench.waits()
        found["kernel_share_under_profiler"] = bench.kernel_share()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=list(SCENES), default="small")
    parser.add_argument("--questions", type=int, default=8)
    parser.add_argument("--seconds", type=float, help="length of a clip, in seconds")
    parser.add_argument("--interventions", nargs="+", default=["full"], help="one experiment each")
    parser.add_argument("--batch_size", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    device, dtype = device_here()
    scene = SCENES[options.size].lasting(options.seconds)
    found: dict[str, Any] = {"hardware": hardware(), "size": options.size, "runs": []}
    model = random_llava(scene.size, device, dtype)
    with tempfile.TemporaryDirectory(prefix="mapflow-throughput-") as place:
        clips = write_clips(scene, Path(place))
        found["clips"] = {
            "width": scene.width,
            "height": scene.height,
            "seconds": scene.seconds,
            "megabytes": clips[0].stat().st_size / 1e6,
        }
        for number, interventions in enumerate(options.interventions):
            asked = questions(clips, options.questions)
            folder = Path(place) / f"of{number}"
            bench = Bench(model, asked, interventions, options.batch_size, folder)
            row = measure(bench, device, options.repeats)
            found["runs"].append(row)
            if options.out:
                options.out.write_text(json.dumps(found, indent=1))
            print(json.dumps(row, indent=1))
            print(
                f"{options.size}, {interventions}: {row['ms_a_question']:.1f} ms per question;"
                f" device busy {row['device_busy']:.0%},"
                f" {row['device_busy_steady']:.0%} without the first third;"
                f" loading alone {row['ms_loading_alone']:.1f} ms;"
                f" preparing {row['ms_preparing_on_one_thread']:.0f} ms on one of"
                f" {row['threads']} threads",
                flush=True,
            )


if __name__ == "__main__":
    main()

"""Memory and overhead per question over ten thousand questions with a tiny model.

    python -m tests.benchmarks.dry_run --questions 10000

The bundled clips are decoded and asked about repeatedly under new ids, through the `generate_until`
that lmms-eval calls, including records. The model has four random layers, so nearly all measured
time is overhead.

Prints JSON: resident memory after warm-up and its largest deviation (percent), and milliseconds per
question: in total, in the model, and the difference, which is the overhead. Exit code 1 if memory
changes by more than 5 %.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from mapflow.model_adapters.lmms.models import model_class
from mapflow.tasks.registry import load_questions
from tests.model_adapters.tiny_llava import write_tiny_llava

WARM_UP = 0.1
"""Share of the questions after which libraries are loaded and allocators have grown."""
FLAT = 5.0
"""Largest accepted deviation of memory, in percent."""


class Stopwatch:
    """Total seconds spent inside the wrapped functions."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            begun = time.perf_counter()
            try:
                return function(*arguments)
            finally:
                self.seconds += time.perf_counter() - begun

        return timed


def resident() -> float:
    """Resident memory of this process in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def dry_run(n: int, interventions: str, place: Path) -> dict[str, float]:
    model = model_class("mapflow_llava")(
        pretrained=str(write_tiny_llava(place / "model")),
        intervention=interventions,
        records=str(place / "run"),
    )
    assert model.run is not None
    questions = load_questions("mapflow_motion")
    model.task_dict = {"t": {"test": questions}}

    def request(number: int) -> SimpleNamespace:
        place = number % len(questions)
        question = replace(questions[place], question_id=f"dry/{number:06d}")
        return SimpleNamespace(args=("", {}, lambda _: [question], place, "t", "test"))

    inside, memory, moments = Stopwatch(), [], []
    model.video_llm.embed = inside.around(model.video_llm.embed)
    model.video_llm.decoder.answer_logits = inside.around(model.video_llm.decoder.answer_logits)
    append = model.run.append

    def watched(records: Any) -> None:
        append(records)
        moments.append((time.perf_counter(), inside.seconds))
        if len(moments) % max(1, n // 200) == 0:
            memory.append((len(moments), resident()))

    model.run.append = watched
    model.generate_until([request(number) for number in range(n)])  # pyright: ignore[reportArgumentType]
    warm = int(WARM_UP * n)
    after = [size for asked, size in memory if asked >= warm]
    (begun, before), (ended, now) = moments[warm], moments[-1]
    per_question = 1e3 / (len(moments) - 1 - warm)
    wall, model_time = (ended - begun) * per_question, (now - before) * per_question
    return {
        "questions": n,
        "records": n * len(interventions.split(";")),
        "mib_after_warm_up": round(after[0], 1),
        "mib_at_the_end": round(after[-1], 1),
        "largest_deviation_percent": round(
            max(abs(size / after[0] - 1) for size in after) * 100, 2
        ),
        "ms_a_question": round(wall, 2),
        "ms_in_the_model": round(model_time, 2),
        "ms_overhead": round(wall - model_time, 2),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--questions", type=int, default=10_000)
    parser.add_argument("--interventions", default="full;video->last")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="mapflow-dry-run-") as place:
        measured = dry_run(options.questions, options.interventions, Path(place))
    print(json.dumps(measured, indent=2))
    return int(measured["largest_deviation_percent"] > FLAT)


if __name__ == "__main__":
    sys.exit(main())

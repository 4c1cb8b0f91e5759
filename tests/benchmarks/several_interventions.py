"""Three interventions in one experiment against three experiments: time, and clips decoded.

    python -m tests.benchmarks.several_interventions                              # small, on a CPU
    python -m tests.benchmarks.several_interventions --size 7b --questions 24     # one GPU, 1080p
    clips

Both ways use the ordinary pipeline, alternately, in one process; figures are medians. Two lower
bounds from measured parts are printed with the ratio. One is for a pipeline with perfect overlap:
the larger of loading by all threads and the GPU's vision pass with three prefills. The other is for
a program that does one thing after the other. First the records of both ways are compared with
small float32 weights; they must be equal.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mapflow.model_adapters.families.llava.model import LlavaVideo
from mapflow.model_adapters.interventions import Intervention, parse_interventions
from mapflow.results.contract.question import Question
from mapflow.results.records.record import Record
from tests.benchmarks.procedures import clock, hardware
from tests.benchmarks.video_runs import (
    SCENES,
    Counts,
    answer_into,
    device_here,
    loading_seconds,
    preparing_seconds,
    questions,
    random_llava,
    threads_here,
    write_clips,
)

INTERVENTIONS = "full,effective,random"


class Bench:
    def __init__(self, model: LlavaVideo, asked: Sequence[Question], place: Path) -> None:
        self.model, self.asked, self.place = model, asked, place
        self.interventions = parse_interventions([INTERVENTIONS])
        self.runs = 0

    def together(self) -> list[Record]:
        return self._run(self.interventions)

    def separately(self) -> list[Record]:
        found = [self._run([one]) for one in self.interventions]
        return [record for records in zip(*found, strict=True) for record in records]

    def _run(self, interventions: Sequence[Intervention]) -> list[Record]:
        self.runs += 1
        return answer_into(self.place / f"run{self.runs}", self.model, self.asked, interventions)

    def counts(self) -> dict[str, tuple[int, int]]:
        """(clips decoded, clips encoded) by each way, for this number of questions."""
        found = {}
        for name, work in (("together", self.together), ("separately", self.separately)):
            counts = Counts()
            with counts.counting(self.model):
                work()
            found[name] = counts.decoded, counts.encoded
        return found

    def largest_difference(self) -> float:
        """Largest difference of an option's probability between records of the same questions."""
        one, other = self.together(), self.separately()
        assert [record.key for record in one] == [record.key for record in other]
        return max(
            abs(mine.option_probs[letter] - theirs.option_probs[letter])
            for mine, theirs in zip(one, other, strict=True)
            for letter in mine.option_probs
        )

    def parts(self, repeats: int) -> tuple[float, dict[str, float]]:
        """Seconds of one clip's vision pass, and of one prefill under each intervention."""
        prepared = self.model.prepare(self.asked[0])
        vision, (inputs,) = clock(lambda: self.model.embed([prepared]), repeats)

        def prefill(one: Intervention) -> float:
            compiled = one.compile(
                prepared.layout,
                self.model.decoder.n_layers,
                self.model.pathways,
                prepared.question.question_id,
            )
            return clock(lambda: self.model.decoder.answer_logits([inputs], [[compiled]]), repeats)[
                0
            ]

        return vision, {str(one): prefill(one) for one in self.interventions}


def correctness(place: Path) -> float:
    """Compares the records with small float32 weights."""
    place.mkdir()
    scene = SCENES["small"]
    model = random_llava(scene.size, "cpu", torch.float32)
    gap = Bench(model, questions(write_clips(scene, place), 3), place).largest_difference()
    assert gap <= 1e-5, gap
    return gap


def measure(bench: Bench, device: str, repeats: int) -> dict[str, Any]:
    n = len(bench.asked)
    counts = bench.counts()  # which also warms up
    assert counts == {"together": (n, n), "separately": (3 * n, 3 * n)}, counts
    together, separately = [], []
    for _ in range(repeats):  # alternately, so that a machine that slows down affects both
        together.append(clock(bench.together, 1, warm_up=0)[0])
        separately.append(clock(bench.separately, 1, warm_up=0)[0])
    middle = repeats // 2
    one, three = sorted(together)[middle], sorted(separately)[middle]
    preparing, threads = preparing_seconds(bench.model, bench.asked[:4]), threads_here(device)
    vision, prefills = bench.parts(max(3, repeats))
    decoding = loading_seconds(bench.model, bench.asked)
    allowed = max(decoding, vision + sum(prefills.values()))
    allowed /= sum(max(decoding, vision + prefill) for prefill in prefills.values())
    once = preparing + vision
    plain = (once + sum(prefills.values())) / (3 * once + sum(prefills.values()))
    return {
        "questions": n,
        "positions": len(bench.model.prepare(bench.asked[0]).layout),
        "clips_decoded_and_encoded": counts,
        "one_run_s": one,
        "three_runs_s": three,
        "ratio": one / three,
        "ratio_that_the_parts_allow": allowed,
        "ratio_one_thing_after_the_other": plain,
        "ms_loading_alone": decoding * 1e3,
        "ms_preparing_on_one_thread": preparing * 1e3,
        "threads": threads,
        "ms_vision": vision * 1e3,
        "ms_prefill": {name: seconds * 1e3 for name, seconds in prefills.items()},
        "three_prefills_over_three_runs": n * sum(prefills.values()) / three,
        "largest_difference_in_probability": bench.largest_difference(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=list(SCENES), default="small")
    parser.add_argument("--questions", type=int, default=6)
    parser.add_argument("--seconds", type=float, help="length of a clip, in seconds")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    device, dtype = device_here()
    with tempfile.TemporaryDirectory(prefix="mapflow-several-") as place:
        found: dict[str, Any] = {"hardware": hardware(), "size": options.size}
        found["float32_difference"] = correctness(Path(place) / "small")
        scene = SCENES[options.size].lasting(options.seconds)
        found["seconds_of_a_clip"] = scene.seconds
        asked = questions(write_clips(scene, Path(place)), options.questions)
        found |= measure(
            Bench(random_llava(scene.size, device, dtype), asked, Path(place)),
            device,
            options.repeats,
        )
    if options.out:
        options.out.write_text(json.dumps(found, indent=1))
    print(json.dumps(found, indent=1))
    print(
        f"{options.size}, {found['questions']} questions:"
        f" one experiment {found['one_run_s']:.2f} s, three {found['three_runs_s']:.2f} s:"
        f" {found['ratio']:.0%} (with perfect overlap {found['ratio_that_the_parts_allow']:.0%},"
        f" without overlap {found['ratio_one_thing_after_the_other']:.0%})"
    )


if __name__ == "__main__":
    main()

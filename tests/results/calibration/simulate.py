"""Runs the simulations of `settings` on several processors and writes their counts as JSON.

    python tests/results/calibration/simulate.py OUT [--of planning] [--repetitions 20000]
        [--processes 16] [--minutes 9] [--part 1/1] [--panel TEXT]

Writes one file per setting into OUT, so an interrupted job continues where it stopped: settings
with a file are skipped. The random numbers of a setting follow from its name alone. A setting is
begun only while `--minutes` last. `--of planning` runs those of `planning_settings` instead:
probabilities, interactions, power.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import zlib
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from error_rates import measure
from planning_settings import INTERACTION, NO_INTERACTION, POWER, planning_settings
from settings import Setting, settings

SETS = {"errors": settings, "planning": planning_settings}
CHUNK = 250
SHARE = {
    "ten treatments at the margin": 0.5,
    "macro average over subtasks": 0.5,
    "intervals of an accuracy that miss it": 0.5,
    "several seeds as one condition": 0.25,
    "any false layer in a sweep": 0.1,
    INTERACTION: 0.4,
    NO_INTERACTION: 0.4,
    POWER: 0.4,
}
"""Share of the repetitions for slow panels."""


def chunk(setting: Setting, number: int, repetitions: int) -> Counter[str]:
    rng = np.random.default_rng([zlib.crc32(setting.key.encode()), number])
    return measure(setting, repetitions, rng)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--of", choices=SETS, default="errors")
    parser.add_argument("--repetitions", type=int, default=20_000)
    parser.add_argument("--processes", type=int, default=16)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--part", default="1/1")
    parser.add_argument("--panel", default="")
    options = parser.parse_args()
    part, parts = map(int, options.part.split("/"))
    options.out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * options.minutes
    wanted = [one for one in SETS[options.of]() if options.panel in one.panel][part - 1 :: parts]
    files = {one.key: options.out / f"{zlib.crc32(one.key.encode()):08x}.json" for one in wanted}
    left = [one for one in wanted if not files[one.key].exists()]
    with ProcessPoolExecutor(options.processes) as pool:
        while left and time.monotonic() < end:
            batch, left = left[:16], left[16:]
            jobs = {}
            for one in batch:
                total = int(options.repetitions * SHARE.get(one.panel, 1.0))
                for number in range(max(1, total // CHUNK)):
                    job = pool.submit(chunk, one, number, min(CHUNK, total))
                    jobs[job] = (one, min(CHUNK, total))
            counts = {one.key: Counter() for one in batch}
            done = Counter()
            for job in as_completed(jobs):
                one, repetitions = jobs[job]
                counts[one.key].update(job.result())
                done[one.key] += repetitions
            for one in batch:
                found = {
                    "panel": one.panel,
                    "setting": one.name,
                    "held_out": one.held_out,
                    "repetitions": done[one.key],
                    "counts": {name: int(hit) for name, hit in sorted(counts[one.key].items())},
                }
                files[one.key].write_text(json.dumps(found, ensure_ascii=False), encoding="utf-8")
                rate = 100 * found["counts"].get("error", 0) / found["repetitions"]
                print(f"{rate:5.2f} %  {one.key}{'  (held out)' * one.held_out}", flush=True)
    print(f"{len(left)} settings are left" if left else "all settings are done", flush=True)


if __name__ == "__main__":
    main()

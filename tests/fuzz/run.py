"""Runs a fuzz target from numbered seeds.

    python -m tests.fuzz.run --executions 1000000 records

Prints executions, seconds, the number of accepted inputs, and every finding with the seed that
repeats it. Exit code 1 if there is a finding. An execution of more than HANG seconds of processor
time is a finding too.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from random import Random

from tests.fuzz.targets import TARGETS, accepted, warm_up

HANG = 5.0
MOST_FINDINGS = 10


class Hang(BaseException):
    """Raised on a hang. Not an Exception, so that no handler of the program catches it."""


def fuzz(name: str, executions: int, first_seed: int = 0) -> tuple[int, list[str]]:
    """(inputs accepted, findings) of the executions with seeds `first_seed`, `first_seed` + 1, …"""
    taken, findings = 0, []
    warm_up(name)  # before the alarm: an import is no hang
    for seed in range(first_seed, first_seed + executions):
        signal.setitimer(signal.ITIMER_VIRTUAL, HANG)
        try:
            taken += accepted(TARGETS[name], Random(seed))
        except (Exception, Hang) as error:
            findings.append(f"seed {seed}: {type(error).__name__}: {str(error)[:500]}")
            if len(findings) == MOST_FINDINGS:
                break
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return taken, findings


def arm() -> None:
    """Makes the alarm raise Hang."""

    def ring(*_: object) -> None:
        raise Hang(f"more than {HANG:g} s")

    signal.signal(signal.SIGVTALRM, ring)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "targets", nargs="+", choices=TARGETS, metavar="TARGET", help=", ".join(TARGETS)
    )
    parser.add_argument("--executions", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0, help="seed of the first execution")
    options = parser.parse_args()
    arm()
    failed = False
    for name in options.targets:
        begun = time.process_time()
        taken, findings = fuzz(name, options.executions, options.seed)
        seconds = time.process_time() - begun
        print(
            f"{name}: {options.executions:,} executions, {seconds:.0f} s, {taken:,} accepted,"
            f" {len(findings)} findings",
            *findings,
            sep="\n  ",
            flush=True,
        )
        failed |= bool(findings)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

"""Ctrl-C and SIGTERM end a command with one line and the exit code that shells expect.

Answers are on disk already, so nothing has to be saved. A second signal ends the process at once.
Workers of a job with several processes are ended by the signal itself: they may be waiting for each
other inside a collective operation, where no Python runs, and their launcher must see them end.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """One of SIGNALS came; not an Exception, so it is not taken for a failed question."""

    def __init__(self, number: int) -> None:
        super().__init__(
            f"interrupted by {signal.Signals(number).name}; what was written so far is kept, and"
            " with the same"
            " --output_path the same command goes on from there"
        )
        self.exit_code = 128 + number


@contextmanager
def interruptible() -> Iterator[None]:
    """While the body runs, SIGINT and SIGTERM raise Interrupted in it. Main thread only."""
    alone = int(os.environ.get("WORLD_SIZE", 1)) == 1
    before = {
        number: signal.signal(number, _interrupt if alone else signal.SIG_DFL) for number in SIGNALS
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    for other in SIGNALS:
        signal.signal(other, signal.SIG_DFL)
    raise Interrupted(number)

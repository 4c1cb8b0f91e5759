"""Wait for work no longer than a limit, even where the work never looks at a clock.

Decoders are foreign code: a hang inside one cannot be interrupted from Python. So the work runs in a thread of its
own, and it is bounded twice:

- `Clock.check()`, called by the work between its steps, ends work that is merely slow, at its next step;
- `run_within` gives up waiting when a step itself hangs. The stuck thread is abandoned: it keeps what memory it holds
  until its step returns, it cannot keep the process from exiting, and its result is dropped.

Guaranteed as long as the foreign code releases Python's lock (PyAV does while demuxing, decoding and converting).

Knows nothing about videos.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

Result = TypeVar("Result")

GRACE_SECONDS = 1.0  # time for the work's own check to speak first: it can name what it was doing


class OutOfTime(Exception):
    """The work did not end within its limit."""


@dataclass(frozen=True)
class Clock:
    """A point in time (of `time.monotonic`) after which the work should stop."""

    ends_at: float

    def check(self) -> None:
        """Raise OutOfTime when time is up."""
        if time.monotonic() >= self.ends_at:
            raise OutOfTime


def run_within(seconds: float, work: Callable[[Clock], Result]) -> Result:
    """`work(clock)`, its result or its exception; OutOfTime after `seconds` (+ GRACE_SECONDS where it never checks)."""
    clock = Clock(time.monotonic() + seconds)
    answers: queue.SimpleQueue[tuple[Result | None, BaseException | None]] = queue.SimpleQueue()

    def worker() -> None:
        try:
            answers.put((work(clock), None))
        except BaseException as error:  # handed over to the caller's thread, whatever it is
            answers.put((None, error))

    threading.Thread(target=worker, name="mapflow-time-limit", daemon=True).start()
    try:
        result, error = answers.get(timeout=max(0.0, seconds) + GRACE_SECONDS)
    except queue.Empty:
        raise OutOfTime from None
    if error is not None:
        raise error
    return result  # type: ignore[return-value]

"""A progress bar on stderr for work that turns out to take more than a few seconds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

PATIENCE = 3.0
"""Seconds without a bar."""

Step = Callable[[str, int], None]
"""Says what comes next, and how many units of work have just been done."""


def no_progress(_next: str, _done: int = 0) -> None:
    """A step that shows nothing."""


@contextmanager
def progress(total: int, patience: float = PATIENCE) -> Iterator[Step]:
    """A bar of `total` units; it appears after `patience` seconds and counts time on its own.

    So a long step, too, shows that it goes on. Work that is quicker shows nothing.
    """
    bar = tqdm(total=total, desc="report", unit="step", leave=False, delay=patience)
    over = threading.Event()

    def show() -> None:
        wait = patience
        while not over.wait(wait):
            bar.refresh()
            wait = 1.0

    def step(what: str, done: int = 1) -> None:
        bar.set_description(what, refresh=False)
        bar.update(done)

    clock = threading.Thread(target=show, daemon=True)
    clock.start()
    try:
        yield step
    finally:
        over.set()
        clock.join()
        bar.close()

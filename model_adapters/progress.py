"""The progress bars of everything that takes longer than a few seconds.

`progress` counts items; `steps` is for work that may be quick, and appears after `PATIENCE`
seconds. `advance` counts bytes of a checkpoint, deep inside its loading. All are on standard error,
with the remaining time where the total is known, and hidden with --quiet and in all processes of a
job but the first.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from tqdm import tqdm

from mapflow.results.runs.processes import processes

LOG_FILE_SECONDS = 10.0
"""Between two states of a bar where standard error is not a terminal, but e.g. a log file."""
PATIENCE = 3.0
"""Seconds without a bar."""

Step = Callable[[str, int], None]
"""Says what comes next, and how many units of work have just been done."""

_bytes: ContextVar[tqdm[Any] | None] = ContextVar("mapflow_bytes", default=None)


def progress(
    items: Iterable[Any] | None = None,
    *,
    title: str,
    total: int | None = None,
    unit: str = "q",
    hidden: bool = False,
    **more: Any,
) -> tqdm[Any]:
    """A bar over items, or one that its caller updates; `more` are further arguments of tqdm."""
    hidden |= logging.getLogger("mapflow").level > logging.INFO
    hidden |= processes().rank > 0
    terminal = sys.stderr.isatty()
    return tqdm(
        items,
        desc=title,
        total=total,
        unit=unit,
        disable=hidden,
        file=sys.stderr,
        mininterval=0.1 if terminal else LOG_FILE_SECONDS,
        **more,
    )


def no_progress(_next: str, _done: int = 0) -> None:
    """A step that shows nothing."""


@contextmanager
def steps(title: str, total: int | None = None, patience: float = PATIENCE) -> Iterator[Step]:
    """A bar of `total` units that appears after `patience` seconds; quicker work shows nothing."""
    plain: dict[str, Any] = {} if total else {"bar_format": "{desc} [{elapsed}]"}
    bar = progress(title=title, total=total, unit="step", leave=False, delay=patience, **plain)

    def step(what: str, done: int = 1) -> None:
        bar.set_description(f"{title}: {what}" if what else title, refresh=False)
        bar.update(done)

    with _ticking(bar, patience):
        yield step


@contextmanager
def loading(name: str, total: int | None) -> Iterator[None]:
    """While a checkpoint loads, `advance` moves a bar of `total` bytes."""
    title = f"loading {name}"
    bar = progress(title=title, total=total, unit="B", unit_scale=True, leave=False, delay=PATIENCE)
    before = _bytes.set(bar)
    try:
        with _ticking(bar, PATIENCE):
            yield
    finally:
        _bytes.reset(before)


def advance(n: int) -> None:
    """So many bytes of the checkpoint have been read; nothing happens outside `loading`."""
    if (bar := _bytes.get()) is not None:
        bar.update(n)


@contextmanager
def _ticking(bar: tqdm[Any], patience: float) -> Iterator[None]:
    """Redraws a bar while one long step runs, so that it shows that work goes on; closes it."""
    over = threading.Event()

    def show() -> None:
        wait = patience
        while not over.wait(wait):
            bar.delay = 0  # from now on it is cleared when it is closed
            bar.refresh()
            wait = 1.0 if sys.stderr.isatty() else LOG_FILE_SECONDS

    clock = threading.Thread(target=show, daemon=True)
    clock.start()
    try:
        yield
    finally:
        over.set()
        clock.join()
        bar.close()

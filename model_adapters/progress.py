"""The progress bar of everything that takes longer than a few seconds."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

from mapflow.results.runs.processes import processes

LOG_FILE_SECONDS = 10.0
"""Between two states of a bar where standard error is not a terminal, but e.g. a log file."""


def progress(
    items: Iterable[Any] | None = None,
    *,
    title: str,
    total: int | None = None,
    unit: str = "q",
    hidden: bool = False,
) -> tqdm[Any]:
    """A bar with the remaining time on standard error, hidden with --quiet and in all processes of
    a job but the first."""
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
    )

"""How many questions are computed together: a number, or as many as fit into memory.

Records do not depend on it: in float32 every question is computed alone (`run_loop.Answering`), and
in other precisions batches move margins within the noise of the precision.
"""

from __future__ import annotations

import re

from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.visible_text import quoted

LARGEST = 64
"""Of `auto`, without --max_batch_size: larger batches are not faster, and the clips that wait for
one take memory of the host."""


class BatchSize:
    """The size of the next batch. `auto` doubles it after every batch that fits, and halves it for
    good when memory runs out.

    fixed: None for `auto`.
    limit: of `auto`.
    searches: how often `auto` looks for a larger size in one run (`auto:N`): once, or again after
        every N-th part of the questions, since prompts of one part may be longer than of another.
    largest: the largest batch that was computed, 0 before the first one.
    """

    def __init__(self, fixed: int | None = 1, limit: int = LARGEST, searches: int = 1) -> None:
        self.fixed, self.limit, self.searches = fixed, limit, searches
        self.size, self.largest = fixed or 1, 0
        self._grows, self._total, self._done = fixed is None, 0, 0

    @property
    def asked(self) -> str:
        """As --batch_size says it."""
        if self.fixed is not None:
            return str(self.fixed)
        return "auto" if self.searches == 1 else f"auto:{self.searches}"

    def start(self, total: int) -> None:
        """A run of `total` questions begins."""
        self._total, self._done = total, 0

    def fitted(self, n: int) -> None:
        """A batch of `n` has fit into memory, whole."""
        self.largest = max(self.largest, n)
        part = self._part()
        self._done += n
        if self.fixed is None and part < self._part() < self.searches:
            self._grows = True
        if self._grows and n >= self.size:
            self.size = min(2 * self.size, self.limit)

    def _part(self) -> int:
        """In which of the run's parts its next question lies."""
        return self._done * self.searches // max(self._total, 1)

    def too_large(self, n: int) -> None:
        """Memory has run out in a batch of `n`."""
        if self.fixed is None:
            self.size, self._grows = max(1, min(self.size, n // 2)), False


def read_batch_size(asked: int | str, limit: int | str | None = None) -> BatchSize:
    """From `8`, `auto` or `auto:4`, and --max_batch_size. Raises MapflowError for anything else."""
    text = str(asked)
    if limit is not None and not text.startswith("auto"):
        raise MapflowError(
            f"--max_batch_size {limit} acts with --batch_size auto only: add that, or leave it out"
        )
    largest = LARGEST if limit is None else _number(str(limit), "--max_batch_size")
    if match := re.fullmatch(r"auto(?::(.*))?", text):
        searches = 1 if match[1] is None else _number(match[1], f"--batch_size {text}: N")
        return BatchSize(None, largest, searches)
    return BatchSize(_number(text, "--batch_size", ", or auto"))


def _number(text: str, name: str, more: str = "") -> int:
    if not re.fullmatch("[0-9]{1,6}", text) or int(text) < 1:
        raise MapflowError(f"{name} {quoted(text)} must be a whole number of at least 1{more}")
    return int(text)

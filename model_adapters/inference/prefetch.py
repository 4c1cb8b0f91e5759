"""Loads the next few items in threads while the consumer works on one.

    for item, loaded in prefetch(questions, load=read_clip):
        if isinstance(loaded, Exception): ...   # a broken video is a value and does not end the run

Results come in the order of the items, `depth` bounds memory, and no thread outlives the loop.
Threads suffice because decoders release Python's lock.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")


def prefetch(
    items: Iterable[Item],
    load: Callable[[Item], Loaded],
    *,
    depth: int = 4,
    threads: int = 2,
    weigh: Callable[[Loaded], int] = lambda loaded: 1,
    most: float = math.inf,
) -> Iterator[tuple[Item, Loaded | Exception]]:
    """Yields (item, load(item)) in order; `threads` background threads load ahead of the consumer.

    Args:
        depth: the most results that exist at once: loading, waiting, and the one that the consumer
            holds. Two is the least that loads ahead. Results that the consumer keeps longer are not
            counted.
        weigh, most: results that exist at once should together weigh less than `most` (bytes, for
            example), counting each as heavy as the heaviest so far. At least two are always
            allowed, and loads that have begun are not cancelled.

    `items` is read in the consumer's thread, at most `depth` ahead, so it may be endless, and its
    errors are raised there. An Exception raised by `load` is yielded in place of the result.

    Leaving the loop early cancels loads that have not begun and waits for those that have, so
    `load` should be bounded in time (`read_frames` is). No thread starts before the first result is
    requested.
    """
    if depth < 1 or threads < 1:
        raise ValueError(
            f"prefetch needs depth >= 1 and threads >= 1, not depth={depth}, threads={threads}"
        )
    source, heaviest = iter(items), 1

    def weighed(item: Item) -> Loaded:
        nonlocal heaviest
        loaded = load(item)
        heaviest = max(heaviest, weigh(loaded))
        return loaded

    pending: deque[tuple[Item, Future[Loaded]]] = deque()
    pool = ThreadPoolExecutor(
        max_workers=min(threads, depth), thread_name_prefix="mapflow-prefetch"
    )
    try:
        while True:
            wanted = int(min(depth, max(2, most / heaviest))) - len(pending)
            for item in islice(source, max(0, wanted)):
                pending.append((item, pool.submit(weighed, item)))
            if not pending:
                break
            # No local variable may hold the result: the consumer alone decides how long it lives.
            yield _outcome(*pending.popleft())
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _outcome(item: Item, future: Future[Loaded]) -> tuple[Item, Loaded | Exception]:
    error = future.exception()
    if error is None:
        return item, future.result()
    if isinstance(error, Exception):
        return item, error
    raise error

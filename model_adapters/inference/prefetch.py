"""Load ahead: while a model works on one item, threads load the next few.

    for item, loaded in prefetch(questions, load=read_clip):
        if isinstance(loaded, Exception): ...   # a broken video is a value, not the end of the run

Order is the items' order, memory is bounded by `depth`, and nothing outlives the loop. Threads suffice because
decoders release Python's lock. Knows nothing about videos or models.
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
    """Yield (item, load(item)) in order, loading in `threads` background threads ahead of the consumer.

    depth: at most this many results exist at once, loading, waiting and the one in the consumer's hands together
        (as far as the consumer does not keep older ones); 2 is the least that loads ahead.
    most: of what `weigh` gives (bytes, say), the results that exist at once are to stay below this, each reckoned as
        heavy as the heaviest so far; they never fall below 2, and what is under way is not called back.

    `items` is read in the consumer's thread, at most `depth` ahead, so it may be endless, and an error of its own is
    raised there. An Exception raised by `load` is yielded in the result's place.

    Leaving the loop early, by break or exception, drops what has not begun and waits for the loads that run: for
    this `load` should be bounded in time (`read_frames` is). No thread starts before the first result is asked for.
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
            # Nothing here may keep a name for the result: the consumer alone decides how long it lives.
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

"""Order, bounds, errors and shutdown of loading ahead."""

import gc
import threading
import time
import weakref

import pytest

from mapflow.model_adapters.inference.prefetch import prefetch


class Loaded:
    """Something that can be counted while it lives."""

    def __init__(self, item):
        self.item = item


def prefetch_threads():
    return [
        thread for thread in threading.enumerate() if thread.name.startswith("mapflow-prefetch")
    ]


@pytest.fixture(autouse=True)
def no_thread_outlives_the_test():
    yield
    gc.collect()
    assert prefetch_threads() == []


@pytest.mark.parametrize("depth", [1, 2, 5, 100])
@pytest.mark.parametrize("threads", [1, 3, 8])
def test_results_come_in_the_items_order_whatever_their_speed(depth, threads):
    def load(item):
        time.sleep(0.002 * (item * 7 % 5))
        return item * item

    got = list(prefetch(range(30), load, depth=depth, threads=threads))
    assert got == [(item, item * item) for item in range(30)]


def test_an_exception_takes_the_results_place_and_the_rest_goes_on():
    def load(item):
        if item % 3 == 1:
            raise OSError(f"broken {item}")
        return item

    got = list(prefetch(range(7), load))
    assert [item for item, _ in got] == list(range(7))
    assert [str(loaded) for _, loaded in got] == ["0", "broken 1", "2", "3", "broken 4", "5", "6"]
    assert all(isinstance(loaded, OSError) for item, loaded in got if item % 3 == 1)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_no_more_than_depth_results_exist_at_once(depth):
    alive, most, lock = 0, 0, threading.Lock()

    def gone():
        nonlocal alive
        with lock:
            alive -= 1

    def load(item):
        nonlocal alive, most
        with lock:
            alive += 1
            most = max(most, alive)
        loaded = Loaded(item)
        weakref.finalize(loaded, gone)
        return loaded

    loop = prefetch(range(40), load, depth=depth, threads=4)
    for expected in range(40):
        _, loaded = next(loop)
        assert loaded.item == expected
        time.sleep(0.001)  # let the threads run as far ahead as they may
        del loaded
    assert list(loop) == []
    assert most == depth


def test_loading_runs_while_the_consumer_works():
    begun = threading.Semaphore(0)

    def load(item):
        begun.release()
        return item

    loop = prefetch(range(10), load, depth=3, threads=1)
    next(loop)
    assert all(begun.acquire(timeout=5) for _ in range(3)), "items 1 and 2 load while 0 is in hand"
    assert not begun.acquire(timeout=0.05), "item 3 must wait"
    loop.close()


def test_an_endless_source_is_read_depth_items_ahead():
    read = []

    def source():
        item = 0
        while True:
            read.append(item)
            yield item
            item += 1

    loop = prefetch(source(), lambda item: item, depth=3)
    assert read == []
    assert [next(loop)[0] for _ in range(5)] == [0, 1, 2, 3, 4]
    assert len(read) == 7
    loop.close()


@pytest.mark.parametrize("leave", ["break", "exception", "forgotten"])
def test_leaving_early_stops_the_threads_and_loads_nothing_more(leave):
    loads = []

    def load(item):
        loads.append(item)
        time.sleep(0.01)
        return item

    def consume():
        for item, _ in prefetch(range(1000), load, depth=4, threads=2):
            if item == 2 and leave == "break":
                break
            if item == 2 and leave == "exception":
                raise RuntimeError("the model ran out of memory")
            if item == 2:
                return

    if leave == "exception":
        with pytest.raises(RuntimeError, match="out of memory"):
            consume()
    else:
        consume()
    gc.collect()
    assert prefetch_threads() == []
    count = len(loads)
    time.sleep(0.05)
    assert len(loads) == count <= 7


def test_an_error_of_the_source_reaches_the_consumer():
    def source():
        yield 1
        raise LookupError("no more questions")

    with pytest.raises(LookupError, match="no more questions"):
        list(prefetch(source(), lambda item: item))


def test_what_is_no_ordinary_exception_is_raised():
    def load(item):
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        list(prefetch([1], load))


def test_no_items_no_results_and_impossible_sizes_are_refused():
    assert list(prefetch([], lambda item: item)) == []
    for sizes in ({"depth": 0}, {"threads": 0}):
        with pytest.raises(ValueError, match="prefetch needs"):
            list(prefetch([1], lambda item: item, **sizes))


@pytest.mark.parametrize(("most", "expected"), [(10, 2), (50, 5), (59, 5), (1000, 8)])
def test_heavy_results_shorten_the_look_ahead_but_never_below_two(most, expected):
    """Results weigh 10: as soon as one is known, only so many are alive as `most` allows."""
    alive, after_the_first, lock = 0, [], threading.Lock()

    def gone():
        nonlocal alive
        with lock:
            alive -= 1

    def load(item):
        nonlocal alive
        with lock:
            alive += 1
            after_the_first.append(alive)
        loaded = Loaded(item)
        weakref.finalize(loaded, gone)
        return loaded

    loop = prefetch(range(60), load, depth=8, threads=8, weigh=lambda loaded: 10, most=most)
    for _ in range(20):
        next(loop)
    after_the_first.clear()
    got = []
    for item, _ in loop:
        time.sleep(0.001)
        got.append(item)
    assert got == list(range(20, 60))
    # one more where the loop's variable still holds the last result while the next is fetched
    assert expected <= max(after_the_first) <= expected + 1

"""`--batch_size auto` against a search by hand: batches of any size up to what the memory holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapflow.model_adapters.inference.batch_size import LARGEST, BatchSize, read_batch_size
from mapflow.results.contract.errors import MapflowError


def run(size: BatchSize, fits: list[int]) -> list[int]:
    """The batches that a run of len(fits) questions computes; `fits[i]` questions fit into memory
    from the i-th question on. As `memory_limit` does, a batch that does not fit is halved."""
    computed: list[int] = []

    def compute(n: int, at: int) -> None:
        if n > fits[at]:
            size.too_large(n)
            compute(n // 2, at)
            compute(n - n // 2, at + n // 2)
        else:
            size.fitted(n)
            computed.append(n)

    size.start(len(fits))
    while (at := sum(computed)) < len(fits):
        compute(min(size.size, len(fits) - at), at)
    return computed


@given(st.integers(1, 100), st.integers(1, 70), st.integers(0, 400))
def test_the_largest_power_of_two_that_fits_is_found_once(memory, limit, n):
    size = BatchSize(None, limit)
    failed = []
    original = size.too_large
    size.too_large = lambda k: (failed.append(k), original(k))[1]  # type: ignore[method-assign]
    computed = run(size, [memory] * n)
    assert sum(computed) == n and max(computed, default=0) == size.largest <= min(memory, limit)
    assert len(failed) <= 1  # memory runs out once, not in every batch
    enough = n >= 4 * LARGEST
    best = max(k for k in [limit, *(2**i for i in range(7))] if k <= min(memory, limit))
    if enough and limit <= memory:
        assert size.size == best
    elif enough:
        assert best // 2 < size.size <= memory


def test_a_new_search_begins_with_every_part_of_the_run():
    """The first half of the questions is four times as long as the second."""
    fits = [4] * 200 + [16] * 200
    assert max(run(read_batch_size("auto"), fits)) == 4
    twice = run(read_batch_size("auto:2"), fits)
    assert max(twice) == 16 and sum(twice) == 400
    assert run(read_batch_size("8"), [8] * 20) == [8, 8, 4]


def test_a_fixed_size_stays():
    size = read_batch_size("8")
    assert run(size, [3] * 16) == [2] * 8 and size.size == 8 and size.largest == 2
    assert (size.asked, read_batch_size("auto:3").asked, read_batch_size("auto").asked) == (
        "8", "auto:3", "auto",
    )  # fmt: skip
    assert read_batch_size("auto", 12).limit == 12


@pytest.mark.parametrize(
    ("asked", "limit", "said"),
    [
        ("many", None, "--batch_size 'many' must be a whole number of at least 1, or auto"),
        ("0", None, "must be a whole number of at least 1, or auto"),
        ("auto:", None, "--batch_size auto:: N '' must be a whole number"),
        ("auto:0", None, "N '0' must be a whole number of at least 1"),
        ("auto", "-3", "--max_batch_size '-3' must be a whole number of at least 1"),
        ("4", 8, "--max_batch_size 8 acts with --batch_size auto only"),
    ],
)
def test_other_sizes_are_refused(asked, limit, said):
    with pytest.raises(MapflowError) as refused:
        read_batch_size(asked, limit)
    assert said in str(refused.value)

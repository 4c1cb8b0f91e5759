"""Workers die by `kill -9` at random moments; the run goes on with another number of them and ends
as if nothing had been.

The same as `tests/soak/kill_resume.py` does with the whole command, here with the part of it that
answers and records: forked workers, so that five kills take seconds.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mapflow.model_adapters.lmms.models import model_class
from mapflow.results.runs.folder import RECORDS, sort_records
from mapflow.tasks.registry import load_questions

FORK = multiprocessing.get_context("fork")
KILLS = 5


def answer_share(folder: Path, rank: int, world: int, batch_size: int = 1) -> None:
    """One worker's share: every `world`-th question, in the order that lmms-eval deals them out."""
    torch.set_num_threads(1)  # a forked process has none of its parent's threads
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world), MASTER_ADDR="here", MASTER_PORT="1")
    questions = load_questions("mapflow_motion", limit=2)[rank::world]
    model = model_class("mapflow_llava")(
        intervention="full;random", records=str(folder), batch_size=batch_size
    )
    model.task_dict = {"t": {"test": questions}}
    model.generate_until(
        [
            SimpleNamespace(args=("", {}, lambda question: [question], number, "t", "test"))
            for number in range(len(questions))
        ]  # pyright: ignore[reportArgumentType]
    )


def start(folder: Path, world: int) -> list:
    workers = [
        FORK.Process(target=answer_share, args=(folder, rank, world)) for rank in range(world)
    ]
    for worker in workers:
        worker.start()
    return workers


def whole_lines(folder: Path) -> set[bytes]:
    file = folder / RECORDS
    return set(file.read_bytes().split(b"\n")[:-1]) if file.is_file() else set()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> bytes:
    folder = tmp_path_factory.mktemp("undisturbed")
    (worker,) = start(folder, 1)
    worker.join()
    assert worker.exitcode == 0
    assert len(sort_records(folder)) == 2 * 10
    return (folder / RECORDS).read_bytes()


@pytest.mark.parametrize("seed", [0])
def test_killed_workers_lose_at_most_the_question_in_flight_and_the_run_ends_the_same(
    seed, undisturbed, tmp_path
):
    chance = random.Random(seed)
    for kill in range(KILLS):
        before, workers = whole_lines(tmp_path), start(tmp_path, world := chance.choice((1, 2)))
        wanted = (
            len(before) + 2 * chance.randint(0, 2) if kill else 0
        )  # the first one before anything is answered
        while len(whole_lines(tmp_path)) < wanted and any(worker.is_alive() for worker in workers):
            time.sleep(0.002)
        time.sleep(chance.uniform(0.0, 0.05))
        answered = whole_lines(tmp_path)
        for worker in workers if chance.random() < 0.5 else [chance.choice(workers)]:
            worker.kill()
        for worker in workers:
            worker.join()  # who was not killed goes on to the end of its share
        assert before <= answered <= whole_lines(tmp_path), f"kill {kill} of {world} lost records"
    for worker in start(tmp_path, 2):
        worker.join()
        assert worker.exitcode == 0
    sort_records(tmp_path)
    assert (tmp_path / RECORDS).read_bytes() == undisturbed


def test_another_number_of_workers_gives_the_same_records(undisturbed, tmp_path):
    for worker in start(tmp_path, 3):
        worker.join()
        assert worker.exitcode == 0
    sort_records(tmp_path)
    assert (tmp_path / RECORDS).read_bytes() == undisturbed


def test_another_order_and_batches_give_the_same_records_in_float32(
    undisturbed, tmp_path, monkeypatch
):
    """Also those of random blocking, whose masks are drawn from the seed, the question and the
    layer.
    """
    original = load_questions

    def backwards(*words, **options):
        return original(*words, **options)[::-1]

    monkeypatch.setitem(globals(), "load_questions", backwards)
    worker = FORK.Process(target=answer_share, args=(tmp_path, 0, 1, 4))
    worker.start()
    worker.join()
    assert worker.exitcode == 0
    assert (tmp_path / RECORDS).read_bytes() != undisturbed, "they were answered in another order"
    sort_records(tmp_path)
    assert (tmp_path / RECORDS).read_bytes() == undisturbed

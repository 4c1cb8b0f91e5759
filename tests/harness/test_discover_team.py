"""How the processes of a discovery wait for each other, and for none that has died."""

import multiprocessing
import os
import time

import pytest

from mapflow.harness.analyses.discovery import team as team_module
from mapflow.harness.analyses.discovery.team import OthersEnded, Team
from mapflow.results.contract.errors import MapflowError

FORK = multiprocessing.get_context("fork")


def job(rank, world=2, port="29517"):
    return {"RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "x", "MASTER_PORT": port}


def in_process(rank, world, body, *args):
    """Starts `body` in a process that a launcher would have given this rank."""

    def run():
        os.environ.update(job(rank, world))
        os._exit(body(*args))

    process = FORK.Process(target=run)
    process.start()
    return process


def share(folder, pipe, failed=False):
    """A process that does its steps when it is told to."""
    team = Team(folder)
    pipe.send("began")
    while step := pipe.recv():
        team.finish(step, failed=failed)
    return 0


@pytest.fixture
def other(tmp_path, monkeypatch):
    """A second process of this job, which is the first of two, and the line to it."""
    for name, value in job(0).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(team_module, "_LOOK_SECONDS", 0.02)
    ours, theirs = FORK.Pipe()
    process = in_process(1, 2, share, tmp_path, theirs, True)
    assert ours.poll(30) and ours.recv() == "began"
    yield process, ours
    process.kill()
    process.join()


def test_a_step_is_done_when_all_have_done_it(tmp_path, other):
    process, line = other
    team = Team(tmp_path)
    team.finish("sweeps")
    line.send("sweeps")
    assert team.wait("sweeps") is True, "questions failed in the other's share"
    assert process.is_alive()
    line.send("scores")
    line.send(None)
    process.join(30)
    assert team.wait("scores") is True, "it has ended, after its last step"
    team.end()
    assert not list(tmp_path.glob(".steps-*"))


def test_nobody_waits_for_a_dead_process(tmp_path, other):
    process, _ = other
    team = Team(tmp_path)
    team.finish("sweeps")
    process.kill()
    begun = time.monotonic()
    with pytest.raises(OthersEnded, match="process 1 ended before its share of the sweeps"):
        team.wait("sweeps")
    assert time.monotonic() - begun < 20


def test_a_process_that_never_begins_is_not_waited_for(tmp_path, monkeypatch):
    for name, value in job(0).items():
        monkeypatch.setenv(name, value)
    (tmp_path / ".steps-1.json").write_text('{"job": "an earlier one", "steps": ["sweeps"]}')
    monkeypatch.setattr(team_module, "START_SECONDS", 0.05)
    monkeypatch.setattr(team_module, "_LOOK_SECONDS", 0.02)
    with pytest.raises(OthersEnded, match="process 1 did not begin"):
        Team(tmp_path).wait("sweeps")


def test_another_job_is_refused(tmp_path, other, monkeypatch):
    monkeypatch.setenv("MASTER_PORT", "29518")
    with pytest.raises(MapflowError, match="in use by process"):
        Team(tmp_path)


def test_alone_nothing_is_written_and_nothing_waited_for(tmp_path):
    team = Team(tmp_path)
    team.finish("sweeps", failed=True)
    assert team.is_first and team.wait("sweeps") is True
    assert not list(tmp_path.glob(".steps-*"))

"""One job at a time in a run's folder: a second is refused, a job's own workers are not, and death
leaves no lock."""

import errno
import fcntl
import multiprocessing
import os
from pathlib import Path

import pytest

from mapflow.results.contract.errors import MapflowError
from mapflow.results.runs.claim import claim
from mapflow.results.runs.folder import RunFolder, read_records
from tests.results.records import a_record

FORK = multiprocessing.get_context("fork")
JOB = {
    "WORLD_SIZE": "2",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29512",
    "TORCHELASTIC_RUN_ID": "none",
}


class Worker:
    """A process that claims `folder` as a worker of the job that `environment` describes, and then
    stays."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self._ours, theirs = FORK.Pipe()
        self.process = FORK.Process(target=_work, args=(folder, environment, theirs), daemon=True)
        self.process.start()
        theirs.close()  # so that a worker that dies ends the wait
        self.refusal: str | None = self._ours.recv()
        if self.refusal is not None:
            self.process.join()  # it shares its parent's locks while it lives

    def kill(self) -> None:
        self.process.kill()
        self.process.join()


def _work(folder, environment, pipe) -> None:
    os.environ.update(environment)
    try:
        run = RunFolder(folder, {}, {})
    except MapflowError as error:
        pipe.send(str(error))
        return
    run.append([a_record(int(environment.get("RANK", 0)))])
    pipe.send(None)
    pipe.recv()


@pytest.fixture(autouse=True, params=["flock", "lockf"])
def locks(request, monkeypatch):
    """File systems such as NFS and Lustre turn a process's flock into a lock on a range of bytes,
    which belongs to the process and ends when it closes the file, through whichever descriptor."""
    monkeypatch.setattr("fcntl.flock", getattr(fcntl, request.param))


@pytest.fixture
def worker():
    """Starts workers; ends them all afterwards."""
    started: list[Worker] = []

    def start(folder: Path, **environment: str) -> Worker:
        started.append(Worker(folder, **environment))
        return started[-1]

    yield start
    for one in started:
        one.kill()


def test_a_second_run_is_refused_and_told_who_has_the_folder(tmp_path, worker):
    first = worker(tmp_path)
    with pytest.raises(
        MapflowError, match=rf"in use by process {first.process.pid} on .*--output_path"
    ):
        RunFolder(tmp_path, {}, {})
    assert read_records(tmp_path) == [a_record(0)]


def test_a_killed_run_leaves_no_lock(tmp_path, worker):
    worker(tmp_path).kill()
    RunFolder(tmp_path, {}, {}).append([a_record(1)])
    assert read_records(tmp_path) == [a_record(0), a_record(1)]


def test_the_workers_of_one_job_share_the_folder_and_another_job_waits_for_the_last_of_them(
    tmp_path, worker
):
    ranks = [worker(tmp_path, **JOB, RANK=rank) for rank in "01"]
    assert [one.refusal for one in ranks] == [None, None]
    assert "in use by" in worker(tmp_path, **JOB | {"MASTER_PORT": "29513"}, RANK="0").refusal
    assert "in use by" in worker(tmp_path).refusal
    ranks[0].kill()
    assert "in use by" in worker(tmp_path).refusal
    assert worker(tmp_path, **JOB, RANK="0").refusal is None, "a dead worker is replaced"


def test_the_same_worker_twice_is_refused(tmp_path, worker):
    assert worker(tmp_path, **JOB, RANK="1").refusal is None
    assert "in use by process" in worker(tmp_path, **JOB, RANK="1").refusal


def test_two_launchers_on_one_machine_with_the_same_port_are_two_jobs(tmp_path, worker):
    assert worker(tmp_path, **JOB, RANK="0", LOCAL_WORLD_SIZE="2").refusal is None
    launcher = FORK.Process(target=_launch, args=(tmp_path, pipe := FORK.Queue()))
    launcher.start()
    assert "in use by" in pipe.get(timeout=60)
    launcher.join()


def _launch(folder, queue) -> None:
    queue.put(Worker(folder, **JOB, RANK="1", LOCAL_WORLD_SIZE="2").refusal)


def test_one_process_may_ask_again_and_gives_the_folder_free_when_it_is_done(tmp_path, worker):
    first, second = RunFolder(tmp_path, {}, {}), RunFolder(tmp_path, {}, {})
    del first
    assert "in use by" in worker(tmp_path).refusal
    del second
    assert worker(tmp_path).refusal is None


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.ENOLCK, errno.ESTALE, errno.EIO])
def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(OSError):
        claim(tmp_path)
    with pytest.raises(MapflowError, match=f"cannot be written: {os.strerror(number)}"):
        RunFolder(tmp_path, {}, {})


@pytest.mark.parametrize("content", [b"", b"\xff\0", b"[1]", b'{"job": "x"}'])
def test_a_lock_whose_owner_cannot_be_read_is_still_a_lock(tmp_path, worker, content):
    worker(tmp_path)
    (tmp_path / ".job").write_bytes(content)
    assert "is in use by another job" in worker(tmp_path).refusal

"""Two processes on two GPUs, as a user starts them: a killed rank, NCCL that cannot start, no
shared memory. Skipped with fewer GPUs.

    python -m pytest tests/soak/test_two_gpus.py
"""

import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
import torch

from mapflow.results.runs.folder import RECORDS

pytestmark = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")

PATIENCE = 90.0
"""Seconds after which a job that should have ended counts as hanging."""

latest: dict[Path, Path] = {}
"""Run folder → log of its latest job."""


def start(folder: Path, *prefix: str, **environment: str) -> subprocess.Popen:
    words = [
        *prefix, sys.executable,
        "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
        "-m", "mapflow.harness.evaluation.lmms_eval", "--model", "mapflow_llava",
        "--intervention", "full,effective", "--output_path", str(folder),
    ]  # fmt: skip
    place = folder.parent / f"{uuid.uuid4().hex}.log"
    latest[folder] = place
    with place.open("w") as output:
        return subprocess.Popen(words, env=os.environ | environment, stdout=output, stderr=output)


def ended(job: subprocess.Popen) -> int:
    """The exit code. Fails if the job hangs."""
    try:
        return job.wait(PATIENCE)
    finally:
        job.kill()


def said(folder: Path) -> str:
    """What the latest job in the folder has printed."""
    return latest[folder].read_text(errors="replace")


def records(folder: Path) -> list[str]:
    file = folder / RECORDS
    return file.read_text().splitlines(keepends=True) if file.is_file() else []


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> list[str]:
    """The records of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert ended(start(folder)) == 0, said(folder)
    return records(folder)


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_dead_rank_ends_the_job_and_nothing_is_lost(whole, tmp_path, sent):
    folder = tmp_path / "run"
    job = start(folder)
    while len(records(folder)) < len(whole) // 4 and job.poll() is None:
        time.sleep(0.01)
    (worker, *_) = children(job.pid)
    os.kill(worker, sent)
    begun = time.monotonic()
    assert ended(job) != 0
    assert time.monotonic() - begun < 30
    kept = records(folder)
    assert kept and all(line.endswith("\n") for line in kept[:-1])
    assert ended(start(folder)) == 0, said(folder)
    assert records(folder) == whole


@pytest.mark.parametrize(
    "environment",
    [
        {"NCCL_SOCKET_IFNAME": "nonexistent0"},
        {"NCCL_NET": "nonexistent", "NCCL_SHM_DISABLE": "1", "NCCL_P2P_DISABLE": "1"},
        {"CUDA_VISIBLE_DEVICES": "0"},
    ],
    ids=["interface", "network", "one GPU for two ranks"],
)
def test_nccl_that_cannot_start_ends_the_job(whole, tmp_path, environment):
    folder = tmp_path / "run"
    code = ended(start(folder, **environment))
    print(f"exit code {code}\n{said(folder)}")
    if code:
        assert all(line.endswith("\n") for line in records(folder))
        assert ended(start(folder)) == 0, said(folder)
    assert records(folder) == whole


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="needs mount")
def test_no_shared_memory(whole, tmp_path):
    folder = tmp_path / "run"
    mount = "mount -t tmpfs -o size=4k tmpfs /dev/shm && head -c 4096 /dev/zero > /dev/shm/full"
    code = ended(start(folder, "unshare", "-m", "sh", "-c", f'{mount}; exec "$@"', "sh"))
    print(f"exit code {code}\n{said(folder)}")
    if code:
        assert ended(start(folder)) == 0, said(folder)
    assert records(folder) == whole


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(one) for one in text.split()]

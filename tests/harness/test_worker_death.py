"""Two workers under torchrun.

Their folder refuses a second job, and when one worker dies the other does not wait for it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mapflow.harness.cli.main import main
from tests.results.test_run_claim import Worker

BIN = Path(sys.executable).parent
WORDS = ("--model", "mapflow_llava", "--intervention", "full", "--limit", "6", "--output_path")
TORCHRUN = ("torchrun", "--nproc_per_node", "2", "-m", "mapflow.harness.evaluation.lmms_eval")
PATIENCE = 240  # seconds; lmms-eval's own is 60,000


def launch(*words: str) -> subprocess.Popen[str]:
    own = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [str(BIN / words[0]), *words[1:]],
        env=os.environ | own,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def record_lines(folder: Path) -> list[str]:
    file = folder / "records.jsonl"
    return file.read_text().splitlines(keepends=True) if file.is_file() else []


@pytest.fixture(scope="module")
def death(tmp_path_factory):
    """What a second command was told while the job stood still; then one worker dies: the job's
    end, and its folder.
    """
    folder = tmp_path_factory.mktemp("job")
    job = launch(*TORCHRUN, *WORDS, str(folder))
    while job.poll() is None and not record_lines(folder):
        time.sleep(0.01)
    assert job.poll() is None, job.communicate()
    workers = children(job.pid)
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)
    second = launch("lmms_eval", *WORDS, str(folder))
    told, _ = second.communicate(timeout=PATIENCE)
    kept = record_lines(folder)
    os.kill(workers[1], signal.SIGKILL)
    os.kill(workers[0], signal.SIGCONT)
    said, _ = job.communicate(timeout=PATIENCE)
    assert len(workers) == 2
    return folder, (second.returncode, told), kept, (job.returncode, said), workers


def test_a_second_command_in_the_folder_is_refused(death):
    _, (code, told), _, _, workers = death
    assert code == 2, told
    (line,) = [line for line in told.splitlines() if line.startswith("lmms_eval: error: ")]
    assert "is in use by process" in line and any(f"process {pid} " in line for pid in workers)


@pytest.mark.parametrize("command", [("trace",), ("lens",), ("sweep", "--routes", "video->last")])
def test_an_analysis_is_refused_in_the_folder_of_another(command, tmp_path, capsys):
    other = Worker(tmp_path)
    code = main(
        [
            *command,
            "--task",
            "mapflow_motion_direction",
            "--limit",
            "1",
            "--output_path",
            str(tmp_path),
        ]
    )
    other.kill()
    assert code == 2
    assert f"is in use by process {other.process.pid} " in capsys.readouterr().err


def test_the_other_worker_does_not_wait_for_the_dead_one(death):
    _, _, _, (code, said), workers = death
    assert code not in (0, None), said
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def test_one_process_goes_on_where_two_were_and_answers_what_is_missing(death):
    folder, _, kept, _, _ = death
    assert all(line in record_lines(folder) for line in kept), "nothing that was answered is lost"
    job = launch("lmms_eval", *WORDS, str(folder))
    said, _ = job.communicate(timeout=PATIENCE)
    assert job.returncode == 0, said
    found = record_lines(folder)
    assert len(found) == len({json.loads(line)["question_id"] for line in found}) == 30
    assert all(line in found for line in kept)

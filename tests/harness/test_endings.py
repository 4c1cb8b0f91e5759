"""Ctrl-C and SIGTERM: one line, the exit code that shells expect, whole records, and a run that
goes on afterwards.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed

from mapflow.harness.cli.endings import Interrupted, interruptible, run_command
from mapflow.results.records.trace import TraceRecord
from mapflow.results.runs.folder import read_records

BIN = Path(sys.executable).parent
KINDS = {"records.jsonl": None, TraceRecord.FILE: TraceRecord}


def stopped(words: list[str], folder: Path, file: str, number: int) -> tuple[int, str]:
    """Start a command, send it the signal after its first record: exit code, and what it said."""
    process = subprocess.Popen(
        [str(BIN / words[0]), *words[1:], "--output_path", str(folder)],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while process.poll() is None and not (
        (folder / file).is_file() and (folder / file).stat().st_size
    ):
        time.sleep(0.02)
    process.send_signal(number)
    said, _ = process.communicate(timeout=300)
    return process.returncode, said


@pytest.mark.parametrize(
    ("words", "file", "number", "code"),
    [
        (["lmms_eval", "--model", "mapflow_llava", "--intervention", "full,random"],
         "records.jsonl", signal.SIGTERM, 143),
        (["mapflow", "trace"], TraceRecord.FILE, signal.SIGINT, 130),
    ],
)  # fmt: skip
def test_an_interrupted_run_says_so_in_one_line_and_keeps_its_records(
    words, file, number, code, tmp_path
):
    returned, said = stopped(words, tmp_path, file, number)
    assert returned == code, said
    assert (
        said.count(f"interrupted by {signal.Signals(number).name}; what was written so far is kept")
        == 1
    )
    assert "Traceback" not in said
    kind = KINDS[file]
    kept = len(read_records(tmp_path, kind) if kind else read_records(tmp_path))
    assert kept >= 1
    assert (tmp_path / file).read_bytes().count(b"\n") == kept, "every line is whole"


def test_a_second_signal_finds_the_systems_own_handling_and_the_old_handlers_come_back():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(Interrupted, match="SIGTERM") as caught, interruptible():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            assert (
                signal.getsignal(signal.SIGINT)
                == signal.getsignal(signal.SIGTERM)
                == signal.SIG_DFL
            )
    assert caught.value.exit_code == 143
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_workers_of_a_job_die_by_the_signal_so_that_their_launcher_sees_it(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with interruptible():
        assert signal.getsignal(signal.SIGINT) == signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def ended(redirected: str, unbuffered: str) -> tuple[int, str]:
    """Exit code and standard error of `mapflow tasks-path` with a redirection of bash."""
    command = f"set -o pipefail; {BIN / 'mapflow'} tasks-path {redirected}"
    ran = subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
    )
    assert "Traceback" not in ran.stderr and "Exception ignored" not in ran.stderr
    return ran.returncode, ran.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_standard_output_that_cannot_be_written_is_an_error(unbuffered):
    full = "mapflow tasks-path: error: standard output cannot be written: No space left on device\n"
    assert ended(">/dev/full", unbuffered) == (2, full)
    closed = "mapflow tasks-path: error: standard output is closed; redirect it\n"
    assert ended(">&-", unbuffered) == (2, closed)
    assert ended("2>&- >/dev/null", unbuffered) == (0, "")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_ended_stops_the_command_without_a_word(unbuffered):
    assert ended("| true", unbuffered) == (141, "")
    assert ended("2>&1 extra | true", unbuffered) in [(141, ""), (2, "")]  # argparse's own exit


def test_a_narrow_encoding_keeps_the_signs_of_numbers():
    body = "run_command('mapflow', lambda: print('1 × 2') or 0, arguments=())"
    ran = subprocess.run(
        [sys.executable, "-c", f"from mapflow.harness.cli.endings import run_command\n{body}"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )
    assert ran.stdout == "1 x 2\n"
    assert "−0.3 ± 1 → é".encode("ascii", "mapflow_plain") == b"-0.3 +/- 1 -> ?"


def test_a_command_that_keeps_nothing_does_not_promise_to_go_on(capsys):
    def body() -> int:
        signal.raise_signal(signal.SIGTERM)
        return 0

    assert run_command("mapflow report", body, arguments=()) == 143
    assert capsys.readouterr().err == "\nmapflow report: interrupted by SIGTERM\n"


def test_a_worker_ends_when_its_launcher_is_killed(tmp_path):
    """The launcher starts a worker of two, prints its number, and is killed."""
    worker = (
        "import time\nfrom mapflow.harness.cli.endings import interruptible\n"
        "with interruptible():\n    time.sleep(60)"
    )
    launcher = (
        "import subprocess, sys, time\n"
        f"print(subprocess.Popen([sys.executable, '-c', {worker!r}]).pid, flush=True)\n"
        "time.sleep(60)"
    )
    environment = os.environ | {"WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "job"}
    process = subprocess.Popen(
        [sys.executable, "-c", launcher], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    number = int(process.stdout.readline())
    time.sleep(1)  # the worker has started to watch
    process.kill()
    process.wait()
    until = time.monotonic() + 20
    while Path(f"/proc/{number}").exists() and time.monotonic() < until:
        if Path(f"/proc/{number}/stat").read_text().split(")")[1].split()[0] == "Z":
            return  # ended; nothing in a container may collect it
        time.sleep(0.05)
    assert time.monotonic() < until


def test_signals_are_handled_before_anything_is_imported():
    """The script's import of a command's modules is replaced by a signal."""
    script = (
        "import signal, sys\nimport mapflow.harness.cli.entry as entry\n"
        "class Late:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'mapflow.harness.cli.main':\n"
        "            signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Late())\n"
        "assert not {'torch', 'numpy', 'argparse'} & set(sys.modules)\n"
        "entry.mapflow()"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (130, "\nmapflow: interrupted by SIGINT\n")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "memory ran out; what was written is kept"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "memory ran out;"),
        (torch.distributed.DistBackendError("NCCL error in: x.cpp:93,\ninvalid usage"),
         "the processes of this job cannot reach each other (NCCL error in: x.cpp:93, invalid"),
    ],
)  # fmt: skip
def test_a_failure_of_the_machine_is_one_line(error, said, capsys):
    def body():
        raise error

    assert run_command("mapflow sweep", body, []) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("mapflow sweep: error: ") and said in line


def test_any_other_error_passes_through():
    with pytest.raises(ZeroDivisionError):
        run_command("mapflow sweep", lambda: 1 // 0, [])

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

from mapflow.harness.cli.interruption import Interrupted, interruptible
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

"""How commands end: errors, signals and a standard output that cannot be written.

Each ends with one line on standard error and the exit code that shells expect. Records are on disk
already, so nothing has to be saved. A second signal ends the process at once. Workers of a job with
several processes are ended by the signal itself: they may be waiting for each other inside a
collective operation, where no Python runs, and their launcher must see them end.
"""

from __future__ import annotations

import argparse
import codecs
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn, TextIO

from mapflow.results.contract.errors import CLOSED_PIPE, FAILED, USAGE_ERROR, MapflowError
from mapflow.results.contract.visible_text import shortened
from mapflow.results.runs.processes import adopt_slurm, processes

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_PLAIN = {
    "−": "-", "–": "-", "—": "-", "→": "->", "↛": "-/->", "≥": ">=", "≤": "<=", "±": "+/-",
    "×": "x", "…": "...", "·": "*", "≈": "~", "‘": "'", "’": "'", "“": '"', "”": '"',
}  # fmt: skip


class Parser(argparse.ArgumentParser):
    """Raises MapflowError, in one line, instead of printing every flag."""

    def error(self, message: str) -> NoReturn:
        raise MapflowError(f"{shortened(message, 500)}; --help lists all flags")


class Interrupted(KeyboardInterrupt):
    """One of SIGNALS came; not an Exception, so it is not taken for a failed question."""

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.exit_code = 128 + number


def run_command(program: str, body: Callable[[], int], arguments: Sequence[str]) -> int:
    """Runs the body of a command and returns the exit code.

    program: the name that begins error lines.
    arguments: of the command; with --output_path, an interrupted one can be continued.

    MapflowError, signals, memory that ran out and a standard output that is closed, full or no
    longer read end the command; other exceptions pass through.
    """
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
    if sys.stdout is None:
        print(f"{program}: error: standard output is closed; redirect it", file=sys.stderr)
        return USAGE_ERROR
    sys.stdout, sys.stderr = _watched(sys.stdout), _watched(sys.stderr)
    try:
        return _ended(program, body, arguments)
    except OutputLost as lost:
        if lost.reader_ended:
            return CLOSED_PIPE
        print(f"{program}: error: {lost}", file=sys.stderr)
        return USAGE_ERROR


def _ended(program: str, body: Callable[[], int], arguments: Sequence[str]) -> int:
    try:
        adopt_slurm()
        with interruptible():
            try:
                return body()
            finally:
                sys.stdout.flush()
    except MapflowError as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        return USAGE_ERROR
    except Interrupted as stop:
        kept = (
            "; what was written so far is kept, and with the same --output_path the same command"
            " goes on from there"
        )
        resumes = any(one.startswith("--output_path") for one in arguments)
        print(f"\n{program}: {stop}{kept if resumes else ''}", file=sys.stderr)
        return stop.exit_code
    except Exception as error:
        failure = _failure_of_the_machine(error)
        if failure is None:
            raise
    print(f"{program}: error: {failure}; what was written is kept", file=sys.stderr)
    return FAILED


def _failure_of_the_machine(error: Exception) -> str | None:
    """Memory that ran out, or processes that cannot reach each other; None for any other error."""
    if "torch" not in sys.modules:  # whose errors are the other ones
        return "memory ran out" if isinstance(error, MemoryError) else None
    import torch.distributed

    from mapflow.model_adapters.device_memory import out_of_memory

    if out_of_memory(error):
        return "memory ran out"
    if isinstance(error, getattr(torch.distributed, "DistError", ())):  # not in every build
        reason = " ".join(str(error).split())
        return f"the processes of this job cannot reach each other ({shortened(reason, 300)})"
    return None


class OutputLost(BaseException):
    """Standard output or error cannot be written; not an Exception, so no library logs it there."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"standard output cannot be written: {error.strerror}")
        self.reader_ended = isinstance(error, BrokenPipeError)


class _Stream(io.FileIO):
    """A standard stream. After a failed write, later output is dropped, also at exit."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)
            raise OutputLost(error) from error


def _watched(stream: TextIO) -> TextIO:
    """The stream with `OutputLost` for OSError, and plain signs where its encoding lacks them.

    Streams that a caller has put in place of the standard ones stay as they are.
    """
    if stream not in (sys.__stdout__, sys.__stderr__) or not isinstance(stream, io.TextIOWrapper):
        return stream
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Stream(stream.fileno(), "wb", closefd=False)),
        encoding=stream.encoding,
        errors="mapflow_plain",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Encoding errors: signs of tables in ASCII, so that no minus is lost; other characters as ?"""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_PLAIN.get(one, "?") for one in text), error.end


codecs.register_error("mapflow_plain", _plain)


@contextmanager
def interruptible() -> Iterator[None]:
    """While the body runs, SIGINT and SIGTERM raise Interrupted in it. Main thread only.

    A worker of torchrun also ends when its launcher was killed, which sends no signal.
    """
    alone = processes().alone
    if not alone and "TORCHELASTIC_RUN_ID" in os.environ:
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    before = {
        number: signal.signal(number, _interrupt if alone else signal.SIG_DFL) for number in SIGNALS
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    for other in SIGNALS:
        signal.signal(other, signal.SIG_DFL)
    raise Interrupted(number)


def _end_with(launcher: int) -> None:
    """Ends this process once its parent is another one than `launcher`."""
    while os.getppid() == launcher:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)

"""What commands say while they work: to standard error, from the first process only.

This project logs to `logging.getLogger("mapflow")` and its children: INFO for what a user may want
to know, WARNING for what may be wrong. Messages of other libraries, Python's warnings, lmms-eval's
log (loguru) and what tasks of lmms-eval print are shown at DEBUG only, their errors always.
Progress bars of this project are hidden where INFO is (`model_adapters/progress.py`).
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from typing import Any

from mapflow.results.contract.errors import MapflowError
from mapflow.results.runs.processes import processes

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def set_up_logs(program: str, verbosity: str = "INFO", *, quiet: bool = False) -> None:
    """Handles all log messages of this process from now on.

    program: the name that begins warnings. Raises MapflowError for a verbosity that is not one of
    LEVELS.
    """
    level = {"TRACE": "DEBUG", "SUCCESS": "INFO"}.get(verbosity.upper(), verbosity.upper())
    if level not in LEVELS:
        raise MapflowError(f"--verbosity {verbosity!r} is not one of {', '.join(LEVELS)}")
    if processes().rank > 0:
        level = "CRITICAL"
    elif quiet and level in ("DEBUG", "INFO"):
        level = "WARNING"
    everything = level == "DEBUG"
    root, own = logging.getLogger(), logging.getLogger("mapflow")
    for handler in [one for one in root.handlers if isinstance(one, _StandardError)]:
        root.removeHandler(handler)
    root.addHandler(_StandardError(program))
    root.setLevel(logging.INFO if everything else max(logging.ERROR, logging.getLevelName(level)))
    own.setLevel(level)
    logging.getLogger("lmms_eval").setLevel(level if everything else logging.ERROR)
    warnings.showwarning = _log_warning
    if everything:
        return
    # Read when these libraries are imported.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")


def route_loguru() -> None:
    """lmms-eval's log becomes messages of the logger `lmms_eval`. After lmms-eval's import, which
    adds outputs of its own."""
    from loguru import logger

    def take(message: Any) -> None:
        record = message.record
        logging.getLogger("lmms_eval").log(record["level"].no, "%s", record["message"])

    logger.remove()
    logger.add(take, level="DEBUG", format="{message}")


class DebugLines:
    """A text stream for `redirect_stdout`: each line becomes a message of the logger `lmms_eval`
    at DEBUG."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self._line = ""

    def write(self, text: str) -> int:
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            logging.getLogger("lmms_eval").debug("%s", line)
        return len(text)

    def flush(self) -> None:
        """Nothing: a line is passed on when it ends."""

    def isatty(self) -> bool:
        return False


class _StandardError(logging.Handler):
    """One line per message on standard error, above a progress bar that is drawn there."""

    def __init__(self, program: str) -> None:
        super().__init__()
        self._program = program

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        ours = record.name.partition(".")[0] == "mapflow"
        try:
            text = record.getMessage() if ours else f"{record.name}: {record.getMessage()}"
        except Exception:  # a library's mistake in its own message
            self.handleError(record)
            return
        if record.levelno >= logging.WARNING:
            text = f"{self._program}: {record.levelname.lower()}: {text}"
        if record.exc_info:
            text += f"\n{logging.Formatter().formatException(record.exc_info)}"
        tqdm.write(text, file=sys.stderr)


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: Any = None,
    line: str | None = None,
) -> None:
    name = filename.rpartition("/")[2]
    logging.getLogger("py.warnings").warning("%s:%d: %s", name, lineno, message)

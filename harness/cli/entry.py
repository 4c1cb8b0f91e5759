"""The console scripts. Signals are handled before the commands' modules are imported."""

import os
import signal
from types import FrameType

from mapflow.results.runs.processes import is_alone


def mapflow() -> int:
    """`mapflow`."""
    _handle_signals("mapflow")
    from mapflow.harness.cli.main import main

    return main()


def lmms_eval() -> int:
    """`lmms_eval`."""
    _handle_signals("lmms_eval")
    from mapflow.harness.evaluation.lmms_eval import main

    return main()


def _handle_signals(program: str) -> None:
    """One line and the signal's exit code instead of a traceback; `endings.py` takes over later."""
    alone = is_alone()

    def end(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        os.write(2, f"\n{program}: interrupted by {name}\n".encode())
        os._exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end if alone else signal.SIG_DFL)

"""Processes that share one discovery and wait for each other between its steps.

Other analyses do not wait: the last process to finish collects. Here every process needs all sweeps
before it can answer its share of the held-out questions. Each writes into a file of the folder
which steps it has done. A process that has died is known by the lock that the kernel released.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from mapflow.model_adapters.progress import progress
from mapflow.results.runs.claim import claim, holds_claim
from mapflow.results.runs.folder import write_json
from mapflow.results.runs.processes import processes

START_SECONDS = 1800.0
"""How long a process may take to begin after another one has finished a step."""
_LOOK_SECONDS = 0.5


class OthersEnded(Exception):
    """Another process ended before its share was done."""


class Team:
    """This process and the others of its job, while they work in `folder`.

    Raises MapflowError if another job works there, or if the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._here = processes()
        self._claim = claim(folder)
        self._steps: list[str] = []
        self._failed = False
        self._write()

    @property
    def is_first(self) -> bool:
        """Whether this process prints and writes the result."""
        return self._here.rank == 0

    def finish(self, step: str, *, failed: bool = False) -> None:
        """This process has done its share of `step`; `failed`: questions failed in it."""
        self._steps.append(step)
        self._failed |= failed
        self._write()

    def wait(self, step: str) -> bool:
        """Waits until all have done their share of `step`; whether questions failed in any.

        Raises OthersEnded if one cannot do its share any more.
        """
        waiting = {rank for rank in range(self._here.world) if rank != self._here.rank}
        failed, begun = self._failed, time.monotonic()
        with progress(title=f"waiting for {step}", total=len(waiting), hidden=not waiting) as bar:
            while waiting:
                for rank in sorted(waiting):
                    running = holds_claim(self._folder, rank)  # first, as its last step precedes
                    said = self._said(rank)
                    if said is not None and step in said["steps"]:
                        failed |= said["failed"]
                        waiting.remove(rank)
                        bar.update()
                    elif said is not None and not running:
                        raise OthersEnded(f"process {rank} ended before its share of the {step}")
                    elif said is None and time.monotonic() - begun > START_SECONDS:
                        raise OthersEnded(f"process {rank} did not begin")
                if waiting:
                    time.sleep(_LOOK_SECONDS)
        return failed

    def end(self) -> None:
        """Removes what the processes wrote, once all steps are done."""
        for file in self._folder.glob(self._file("*").name):
            file.unlink(missing_ok=True)

    def _write(self) -> None:
        if self._here.world > 1:
            said = {"job": self._here.job, "steps": self._steps, "failed": self._failed}
            write_json(self._file(self._here.rank), said)

    def _said(self, rank: int) -> dict | None:
        """What a process of this job has written; None if it has not begun."""
        try:
            said = json.loads(self._file(rank).read_text("utf-8"))
        except (OSError, ValueError):
            return None
        return said if said.get("job") == self._here.job else None

    def _file(self, rank: int | str) -> Path:
        return self._folder / f".steps-{rank}.json"

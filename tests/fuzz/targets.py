"""The fuzz targets: one function per parser, which makes one random input and checks the result.

A target returns if its input was refused with a MapflowError or accepted correctly. Any other
exception is a crash, and an AssertionError is a wrong acceptance. The checks follow the
documentation only.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from random import Random
from typing import Any

from mapflow.results.contract.errors import MapflowError

Target = Callable[[Random], Any]


def _target(module: str, name: str) -> Target:
    """A target whose module is imported when it runs: layouts need torch, folders pandas, the
    others neither.
    """

    def run(random: Random) -> Any:
        return getattr(import_module(f"tests.fuzz.{module}"), name)(random)

    return run


TARGETS: dict[str, Target] = {
    "interventions": _target("fuzz_interventions", "interventions"),
    "answers": _target("fuzz_answers", "answers"),
    "records": _target("fuzz_records", "records"),
    "rows": _target("fuzz_rows", "rows"),
    "layouts": _target("fuzz_layouts", "layouts"),
    "manifests": _target("fuzz_folders", "manifests"),
    "folders": _target("fuzz_folders", "folders"),
    "logs": _target("fuzz_logs", "logs"),
}


def accepted(target: Target, random: Random) -> bool:
    """Runs one execution: True if the input was accepted, False if it was refused in one line."""
    try:
        return target(random) is not None
    except MapflowError as error:
        assert str(error).strip() and "\n" not in str(error), error
        return False

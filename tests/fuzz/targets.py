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


MODULES = {
    "interventions": "fuzz_interventions",
    "answers": "fuzz_answers",
    "records": "fuzz_records",
    "rows": "fuzz_rows",
    "layouts": "fuzz_layouts",
    "manifests": "fuzz_folders",
    "folders": "fuzz_folders",
    "logs": "fuzz_logs",
}
"""Target → the module with a function of its name. It is imported when the target is used: layouts
need torch, folders pandas, the others neither."""


def warm_up(name: str) -> None:
    """Imports what the target needs, which takes long on a slow disk."""
    import_module(f"tests.fuzz.{MODULES[name]}")


def target(name: str) -> Target:
    """The function of a target, which imports its module when it runs."""

    def run(random: Random) -> Any:
        return getattr(import_module(f"tests.fuzz.{MODULES[name]}"), name)(random)

    return run


TARGETS: dict[str, Target] = {name: target(name) for name in MODULES}


def accepted(target: Target, random: Random) -> bool:
    """Runs one execution: True if the input was accepted, False if it was refused in one line."""
    try:
        return target(random) is not None
    except MapflowError as error:
        assert str(error).strip() and "\n" not in str(error), error
        return False

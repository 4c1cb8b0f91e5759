"""The fuzz targets: one function per parser, which makes one random input and checks the result.

A target returns if its input was refused with a MapflowError or accepted correctly. Any other
exception is a crash, and an AssertionError is a wrong acceptance. The checks follow the
documentation only.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from mapflow.results.contract.errors import MapflowError

from .fuzz_answers import answers
from .fuzz_folders import folders, manifests
from .fuzz_interventions import interventions
from .fuzz_logs import logs
from .fuzz_records import records
from .fuzz_rows import rows

Target = Callable[[Random], Any]


def layouts(random: Random) -> Any:
    """See `fuzz_layouts.py`. Imported when run: only this target needs torch."""
    from .fuzz_layouts import layouts as target

    return target(random)


TARGETS: dict[str, Target] = {
    "interventions": interventions,
    "answers": answers,
    "records": records,
    "rows": rows,
    "layouts": layouts,
    "manifests": manifests,
    "folders": folders,
    "logs": logs,
}


def accepted(target: Target, random: Random) -> bool:
    """Runs one execution: True if the input was accepted, False if it was refused in one line."""
    try:
        return target(random) is not None
    except MapflowError as error:
        assert str(error).strip() and "\n" not in str(error), error
        return False

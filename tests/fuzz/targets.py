"""What is fuzzed: one function a parser, which takes a generator of randomness and makes and judges one input.

A target returns when its input was refused with a MapflowError or taken rightly, and raises otherwise: any other
exception is a crash, an AssertionError a wrong acceptance. The judgements are written from the documentation alone.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from mapflow.results.contract.errors import MapflowError

from .fuzz_answers import answers
from .fuzz_interventions import interventions
from .fuzz_layouts import layouts
from .fuzz_records import records
from .fuzz_rows import rows

Target = Callable[[Random], Any]

TARGETS: dict[str, Target] = {
    "interventions": interventions,
    "answers": answers,
    "records": records,
    "rows": rows,
    "layouts": layouts,
}


def accepted(target: Target, random: Random) -> bool:
    """One execution: True where the input was taken, False where it was refused in one line."""
    try:
        return target(random) is not None
    except MapflowError as error:
        assert str(error).strip() and "\n" not in str(error), error
        return False

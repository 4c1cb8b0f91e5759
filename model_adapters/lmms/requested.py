"""The interventions that a caller in this process has parsed already.

lmms-eval hands arguments to a model as text. A caller that starts lmms-eval itself passes parsed
interventions here instead, so that they are parsed, and their files read, only once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mapflow.model_adapters.interventions import Intervention

_requested: ContextVar[tuple[Intervention, ...]] = ContextVar("mapflow_requested", default=())


@contextmanager
def requested_interventions(interventions: Sequence[Intervention]) -> Iterator[None]:
    """Within this context, models run these instead of their argument `intervention`; empty: no."""
    token = _requested.set(tuple(interventions))
    try:
        yield
    finally:
        _requested.reset(token)


def requested() -> list[Intervention]:
    """The interventions of the surrounding context, empty outside one."""
    return list(_requested.get())

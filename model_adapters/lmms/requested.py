"""What a caller in this process has parsed already: interventions, and settings of generation.

lmms-eval hands arguments to a model as text. A caller that starts lmms-eval itself passes parsed
interventions here instead, so that they are parsed, and their files read, only once. It passes the
command's --gen_kwargs too, which lmms-eval mixes with the tasks' own settings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mapflow.model_adapters.interventions import Intervention
    from mapflow.model_adapters.lmms.generation import Generation

_requested: ContextVar[tuple[Intervention, ...]] = ContextVar("mapflow_requested", default=())

_generation: ContextVar[Generation | None] = ContextVar("mapflow_generation", default=None)


def request_generation(generation: Generation) -> None:
    """From now on, models of this process write answers by these settings of the command."""
    _generation.set(generation)


def requested_generation() -> Generation | None:
    """The settings of the command; None if this process was not started by mapflow's command."""
    return _generation.get()


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

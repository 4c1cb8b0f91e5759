"""What a caller in this process asks models for, beside the text that lmms-eval hands them.

lmms-eval hands arguments to a model as text. A caller that starts lmms-eval itself passes parsed
interventions here instead, so that they are parsed, and their files read, only once. It passes the
command's --gen_kwargs too, which lmms-eval mixes with the tasks' own settings. And it may let
lmms-eval ask several times: the model is loaded once, and gives the answers under another
intervention each time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mapflow.model_adapters.interventions import Intervention
    from mapflow.model_adapters.lmms.generation import Generation


@dataclass
class Request:
    """One run of a caller.

    interventions: empty for what the model's argument `intervention` says.
    generation: the settings of --gen_kwargs; None if the caller read none.
    reported: position of the intervention whose answers lmms-eval gets.
    model: the model that was loaded for this run.
    """

    interventions: tuple[Intervention, ...] = ()
    generation: Generation | None = None
    reported: int = 0
    model: Any = None


_request: ContextVar[Request | None] = ContextVar("mapflow_request", default=None)


@contextmanager
def requesting(request: Request) -> Iterator[None]:
    """Within this context, models serve this request."""
    token = _request.set(request)
    try:
        yield
    finally:
        request.model = None
        _request.reset(token)


def current_request() -> Request | None:
    """The request of the surrounding context; None if mapflow's command did not start lmms-eval."""
    return _request.get()


def requested_generation() -> Generation | None:
    """The settings of --gen_kwargs; None if this process was not started by mapflow's command."""
    request = current_request()
    return request.generation if request else None

"""Keeps scoring functions of lmms-eval's tasks from asking judges over the network.

Many of them swallow every error and score 0 if a judge cannot be asked. So the attempt itself is
noted: an answer whose scoring attempted it has no score.
"""

from __future__ import annotations

import inspect
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import CodeType, FunctionType, ModuleType
from typing import Any

CLIENTS = frozenset(
    {"requests", "openai", "httpx", "aiohttp", "anthropic", "urllib", "urllib3", "dashscope"}
    | {"litellm", "zhipuai", "genai", "google"}
)
"""Packages that reach the network."""
_JUDGES = "lmms_eval.llm_judge"


class NetworkAttempted(BaseException):
    """Not an `Exception`: retries of scoring functions shall not swallow it."""


class Attempts:
    """`made`: whether code within `no_network` has tried to reach the network."""

    made = False


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Within this context `owner.name` is `value`; restored also after an exception.

    Raises AttributeError if `owner` has no such name.
    """
    original = inspect.getattr_static(owner, name)  # a class's static method stays one
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)


@contextmanager
def no_network() -> Iterator[Attempts]:
    """Within this context this thread, and threads that it starts, reach no network and no judge.

    The first attempt raises NetworkAttempted; after it, sleeping raises too, so that loops of
    retries end. Other threads are not affected. The exception is caught here.
    """
    attempts = Attempts()
    others = {one.ident for one in threading.enumerate()} - {threading.get_ident()}

    def guarded(original: Callable[..., Any], always: bool) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() not in others and (always or attempts.made):
                attempts.made = True
                raise NetworkAttempted
            return original(*args, **kwargs)

        return call

    with ExitStack() as stack:
        for owner, name in _entrances():
            own = guarded(getattr(owner, name), always=True)
            stack.enter_context(replaced(owner, name, own))
        stack.enter_context(replaced(time, "sleep", guarded(time.sleep, always=False)))
        try:
            yield attempts
        except NetworkAttempted:
            attempts.made = True


def _entrances() -> list[tuple[Any, str]]:
    """Functions that open a connection, and constructors that fail before that without a key."""
    found: list[tuple[Any, str]] = [
        (socket.socket, "connect"),
        (socket.socket, "connect_ex"),
        (socket, "getaddrinfo"),
        (socket, "create_connection"),
    ]
    if openai := sys.modules.get("openai"):
        found += [(openai.OpenAI, "__init__"), (openai.AzureOpenAI, "__init__")]
    if judges := sys.modules.get(_JUDGES):
        found += [(judges, "get_server"), (judges.ProviderFactory, "create_provider")]
    return found


def network_client(function: Any) -> str | None:
    """The package through which a task's function may reach the network, None if none is found.

    Follows the names that the function uses to functions and classes of lmms-eval.
    """
    return _client(function, set())


def _client(used: Any, seen: set[int]) -> str | None:
    used = getattr(used, "func", used)  # functools.partial
    used = getattr(used, "__func__", used)
    if id(used) in seen:
        return None
    seen.add(id(used))
    if isinstance(used, type):
        own = [getattr(one, "__func__", one) for one in vars(used).values()]
        found = (_client(one, seen) for one in own if isinstance(one, FunctionType))
        return next(filter(None, found), None)
    if not isinstance(used, FunctionType):
        return None
    for name in sorted(_names(used.__code__)):
        value = used.__globals__.get(name)
        package = value.__name__ if isinstance(value, ModuleType) else _package(value)
        if package.startswith(_JUDGES):
            return _JUDGES
        if package.partition(".")[0] in CLIENTS:
            return package.partition(".")[0]
        if value is None and name.partition(".")[0] in CLIENTS:  # imported inside the function
            return name.partition(".")[0]
        if value is None and name.startswith(_JUDGES):
            return _JUDGES
        if package.startswith("lmms_eval.") and not isinstance(value, ModuleType):
            inner = value if isinstance(value, (type, FunctionType)) else type(value)
            if found := _client(inner, seen):
                return found
    return None


def _package(value: Any) -> str:
    """Where a class, a function or the class of an object comes from."""
    owner = value if isinstance(value, (type, FunctionType)) else type(value)
    return str(getattr(owner, "__module__", ""))


def _names(code: CodeType) -> set[str]:
    """Names that a function and the functions within it use."""
    inner = [one for one in code.co_consts if isinstance(one, CodeType)]
    return set(code.co_names).union(*map(_names, inner))

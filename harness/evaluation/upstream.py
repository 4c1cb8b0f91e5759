"""Everything that relies on names inside lmms-eval, in one place.

lmms-eval exits 0 on model errors, missing tasks and unwritable output. To see those errors, and to
complete a run's arguments once they are final (also those from `--config`), two functions of
`lmms_eval.__main__` are replaced for the time of one command: `cli_evaluate_single`, which runs one
set of arguments, and `TaskManager`, which finds tasks. lmms-eval loads the model before the tasks;
`evaluator.simple_evaluate` and `evaluator.get_task_dict` are replaced so that tasks that cannot be
asked are refused first. Checked with lmms-eval 0.7.3.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from types import ModuleType
from typing import Any

from mapflow.model_adapters.lmms.network_guard import replaced
from mapflow.results.contract.errors import MapflowError

LISTINGS = ("list", "list_groups", "list_tags", "list_subtasks")
"""Values of `--tasks` that print a list instead of running tasks."""


def run_subcommand(arguments: Sequence[str]) -> None:
    """`lmms_eval tasks`, `models`, `version`, …: lmms-eval's own command, unchanged."""
    from lmms_eval.cli.dispatch import main

    with replaced(sys, "argv", ["lmms_eval", *arguments]):
        main()


def evaluate(
    arguments: Sequence[str],
    wrap_single: Callable[[Callable[[Any], Any]], Callable[[Any], Any]],
    wrap_task_manager: Callable[[Callable[..., Any]], Callable[..., Any]],
    check_task: Callable[[str, Any], None],
) -> int | str | None:
    """Runs lmms-eval's evaluation with these command line arguments.

    `wrap_single` receives lmms-eval's `cli_evaluate_single` and returns its replacement;
    `wrap_task_manager` does the same for `TaskManager`. `check_task` receives name and task object
    of every task before the model is loaded. Returns what lmms-eval passes to
    `sys.exit`, 0 if it does not call it.
    """
    import lmms_eval.__main__ as upstream
    from lmms_eval import evaluator

    original = evaluator.simple_evaluate

    def tasks_first(*args: Any, **kwargs: Any) -> Any:
        kind = _kind(kwargs["model"], kwargs.get("force_simple", False))
        loaded = _loaded(kwargs["tasks"], kwargs["task_manager"], kind)
        for name, task in _leaves(loaded):
            check_task(name, task)
        with replaced(evaluator, "get_task_dict", lambda *_: loaded):
            return original(*args, **kwargs)

    with ExitStack() as stack:
        stack.enter_context(replaced(evaluator, "simple_evaluate", tasks_first))
        stack.enter_context(replaced(sys, "argv", ["lmms_eval", *arguments]))
        single = wrap_single(upstream.cli_evaluate_single)
        stack.enter_context(replaced(upstream, "cli_evaluate_single", single))
        manager = wrap_task_manager(upstream.TaskManager)
        stack.enter_context(replaced(upstream, "TaskManager", manager))
        try:
            upstream.cli_evaluate()
        except SystemExit as stop:
            return stop.code
    return 0


def _kind(model: str, force_simple: bool) -> str:
    """Whether tasks pass a conversation ("chat") to a model's class, or text and visuals.

    Raises what importing the class raises.
    """
    from lmms_eval.models import get_model

    return "simple" if get_model(model, force_simple).is_simple else "chat"


def _loaded(names: Sequence[Any], manager: Any, kind: str) -> Mapping[Any, Any]:
    """The task objects, in lmms-eval's nesting. Raises MapflowError for a package that is missing.

    Some tasks import decord for frames that models here read themselves; without it, they get a
    module of that name that can only be imported.
    """
    from lmms_eval.tasks import get_task_dict

    if importlib.util.find_spec("decord") is None:
        sys.modules["decord"] = _Absent("decord")
    try:
        return get_task_dict(names, manager, kind)
    except ModuleNotFoundError as error:
        raise MapflowError(
            f"--tasks {','.join(map(str, names))} need the Python package {error.name!r}, which is"
            " not installed: install it, or leave the task out"
        ) from error


def _leaves(tasks: Mapping[Any, Any]) -> list[tuple[str, Any]]:
    """Name and object of every task of nested groups."""
    found: list[tuple[str, Any]] = []
    for name, task in tasks.items():
        task = task[1] if isinstance(task, tuple) else task
        if isinstance(task, Mapping):
            found += _leaves(task)
        elif task is not None:
            found.append((str(name), task))
    return found


class _Absent(ModuleType):
    """A package that is not installed: its names exist, using one raises MapflowError."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__spec__ = importlib.machinery.ModuleSpec(name, None)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def use(*args: Any, **kwargs: Any) -> Any:
            raise MapflowError(f"this task uses {self.__name__}.{name}: install {self.__name__}")

        return use


def original_error(error: BaseException) -> BaseException:
    """The error itself where lmms-eval's retries (tenacity) have wrapped it."""
    attempt = getattr(error, "last_attempt", None)
    return attempt.exception() if attempt is not None and attempt.failed else error

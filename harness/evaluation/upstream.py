"""Everything that relies on names inside lmms-eval, in one place.

lmms-eval exits 0 on model errors, missing tasks and unwritable output. To see those errors, and to
complete a run's arguments once they are final (also those from `--config`), two functions of
`lmms_eval.__main__` are replaced for the time of one command: `cli_evaluate_single`, which runs one
set of arguments, and `TaskManager`, which finds tasks. Checked with lmms-eval 0.7.3.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

LISTINGS = ("list", "list_groups", "list_tags", "list_subtasks")
"""Values of `--tasks` that print a list instead of running tasks."""


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Within this context `owner.name` is `value`; restored also after an exception.

    Raises AttributeError if `owner` has no such name, i.e. if lmms-eval has changed.
    """
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)


def run_subcommand(arguments: Sequence[str]) -> None:
    """`lmms_eval tasks`, `models`, `version`, …: lmms-eval's own command, unchanged."""
    from lmms_eval.cli.dispatch import main

    with replaced(sys, "argv", ["lmms_eval", *arguments]):
        main()


def evaluate(
    arguments: Sequence[str],
    wrap_single: Callable[[Callable[[Any], Any]], Callable[[Any], Any]],
    wrap_task_manager: Callable[[Callable[..., Any]], Callable[..., Any]],
) -> int | str | None:
    """Runs lmms-eval's evaluation with these command line arguments.

    `wrap_single` receives lmms-eval's `cli_evaluate_single` and returns its replacement;
    `wrap_task_manager` does the same for `TaskManager`. Returns what lmms-eval passes to
    `sys.exit`, 0 if it does not call it.
    """
    import lmms_eval.__main__ as upstream

    with ExitStack() as stack:
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


def original_error(error: BaseException) -> BaseException:
    """The error itself where lmms-eval's retries (tenacity) have wrapped it."""
    attempt = getattr(error, "last_attempt", None)
    return attempt.exception() if attempt is not None and attempt.failed else error

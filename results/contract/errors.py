"""How commands fail: the one exception for users' mistakes, and the exit codes."""

from mapflow.results.contract.visible_text import visible

FAILED, USAGE_ERROR, QUESTIONS_MISSING = 1, 2, 3
"""Exit codes beside 0: the run or a check failed; the arguments or files are wrong; every question was tried and some
failed. An interrupted command exits with 128 plus the signal's number."""


class MapflowError(ValueError):
    """A mistake in what the user asked for, never a bug; commands print it and exit with `USAGE_ERROR`.

    The message is one line that names the thing, the value and what to do. Characters quoted from files that would act
    on a terminal are shown as codes.
    """

    def __str__(self) -> str:
        return visible(super().__str__())

"""Errors and exit codes of commands: the one exception for users' mistakes, and the codes."""

from mapflow.results.contract.visible_text import shortened, visible

FAILED, USAGE_ERROR, QUESTIONS_MISSING, CLOSED_PIPE = 1, 2, 3, 141
"""Exit codes beside 0 for success.

`FAILED`: the run or a check failed. `USAGE_ERROR`: arguments or files are wrong.
`QUESTIONS_MISSING`: the run finished, and some questions failed. `CLOSED_PIPE`: the reader of
standard output, e.g. `head`, has ended; shells report SIGPIPE so. An interrupted command exits with
128 plus the signal's number.
"""


class MapflowError(ValueError):
    """A mistake in what the user asked for, never a bug; commands print it and exit with
    `USAGE_ERROR`.

    The message is one line that names the thing, the value and what to do. Control characters
    quoted from files are shown as codes, and the middle of a very long message is left out.
    """

    def __str__(self) -> str:
        return shortened(visible(super().__str__()))

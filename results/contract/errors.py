"""The one exception that a user's mistake raises.

Its message is a single line that names the thing, the value and what to do; command lines print it and exit 2.
"""

from mapflow.results.contract.visible_text import visible


class MapflowError(ValueError):
    """A mistake in what the user asked for: never a bug, never a traceback.

    What it quotes from files cannot act on a terminal: its text is `visible`, and so always one line.
    """

    def __str__(self) -> str:
        return visible(super().__str__())
